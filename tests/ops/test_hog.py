"""Histograms of oriented gradients against printed numbers and a second implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import hog, images

PUBLISHED = dict(bins=9, cell=8, window=0)


@functools.partial(jax.jit, static_argnames=("bins", "cell", "window"))
def run(image, **numbers):
    return hog.hog(image, **numbers)


def plain(image, bins, cell, window):
    """The definition, in float64, pixel by pixel: `[B H W C] -> [B C bins R Q]`."""
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], float)
    weight = np.ones((window or 1,) * 2)
    if window:
        x = (np.arange(window) - (window - 1) / 2) / (window / 2)
        weight = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 2)
        weight /= weight.sum()
    b, height, width, c = image.shape
    out = np.zeros((b, c, bins, height // cell, width // cell))
    rows, cols = np.indices((height, width))
    weight = weight[rows % len(weight), cols % len(weight)]
    for i in range(b):
        for j in range(c):
            gx, gy = (
                scipy.ndimage.correlate(np.float64(image[i, :, :, j]), k, mode="mirror")
                for k in (kernel, kernel.T)
            )
            k = np.int64(np.floor(np.arctan2(gx, gy) / np.pi * bins)) % bins
            votes = weight * np.hypot(gx, gy)
            np.add.at(out[i, j], (k, rows // cell, cols // cell), votes)
    return out / np.maximum(np.linalg.norm(out, axis=2, keepdims=True), 1e-12)


@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 3),
    cols=st.integers(1, 4),
    bins=st.integers(2, 12),
    cell=st.sampled_from([2, 4, 5]),
    windowed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_is_the_definition(rows, cols, bins, cell, windowed, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, rows * cell, cols * cell, 3)).astype(np.float32)
    numbers = dict(bins=bins, cell=cell, window=2 * (cell // 2) if windowed else 0)
    if cell == 5:
        numbers["window"] = 0  # an odd window isn't symmetric as published
    np.testing.assert_allclose(
        run(image, **numbers), plain(image, **numbers), atol=1e-4
    )


# Windows 0 and 16: first twelve features of token 0, twelve of token 3, all summed.
PRINTED = {
    0: (
        [0.139125, 0.044688, 0.112824, 0.021883, 0.395623, 0.298872]
        + [0.081172, 0.13538, 0.872408, 0.893177, 0.974551, 0.865819],
        [0.01091, 0.12278, 0, 0.043698, 0, 0, 0, 0, 0.042193, 0.049427]
        + [0.006125, 0.007372],
        74.399585,
    ),
    16: (
        [0.102224, 0.044824, 0.078211, 0.031516, 0.375853, 0.330397]
        + [0.072226, 0.185994, 0.905845, 0.905625, 0.986706, 0.82659],
        [0.012045, 0.09489, 0, 0.031917, 0, 0, 0, 0, 0.042197, 0.051925]
        + [0.007779, 0.008248],
        73.545896,
    ),
}


@pytest.mark.parametrize("window", PRINTED)
def test_printed_numbers(window):
    y, x = np.mgrid[:32, :32]
    planes = [
        np.sin(0.3 * (c + 1) * x + 0.2 * y) + 0.5 * np.cos(0.25 * y - 0.1 * c)
        for c in range(3)
    ]
    image = np.float32(np.stack(planes, -1))[None]
    tokens = hog.to_patches(run(image, **PUBLISHED | {"window": window}), 2)
    assert tokens.shape == (1, 4, 108)
    first, last, total = PRINTED[window]
    np.testing.assert_allclose(tokens[0, 0, :12], first, atol=2e-6)
    np.testing.assert_allclose(tokens[0, 3, 72:84], last, atol=2e-6)
    assert tokens.sum(dtype=float) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(
    ("right", "down", "expected"),
    [(1, 0, 4), (-1, 0, 4), (0, 1, 0), (0, -1, 0)]
    + [(1, 1, 2), (1, -1, 6), (2, 1, 3), (1, 2, 1)],
)
def test_bin_of_a_ramp(right, down, expected):
    y, x = np.mgrid[:32, :32]
    image = np.float32(right * x + down * y)[None, :, :, None]
    cells = np.asarray(run(image, **PUBLISHED))[0, 0, :, 1:3, 1:3]  # no border
    np.testing.assert_allclose(cells[expected], 1, atol=1e-6)
    assert cells.sum() == pytest.approx(4)


def test_textured_cells_have_unit_length_and_a_flat_image_none():
    rng = np.random.default_rng(0)
    image = np.float32(rng.normal(size=(1, 32, 48, 3)))
    cells = run(image, **PUBLISHED)
    assert cells.shape == (1, 3, 9, 4, 6) and cells.dtype == jnp.float32
    np.testing.assert_allclose(jnp.square(cells).sum(2), 1.0, atol=1e-6)
    assert not np.any(run(jnp.full((1, 32, 32, 3), 0.3), **PUBLISHED))


def test_a_flat_part_of_a_photograph_is_exactly_zero():
    """Bytes standardised: rounding must leave nothing to be stretched to length 1."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    image[:, 7:17, 7:17] = (200, 31, 7)
    image = images.normalize(
        images.to_float(image), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    cells = run(image, **PUBLISHED)
    assert not np.any(cells[..., 1, 1])
    assert np.count_nonzero(cells.sum((0, 1, 2))) == 15  # of 16


@pytest.mark.parametrize("bins", [6, 9, 12])
def test_border_pixels_have_no_gradient_across_the_border(bins):
    """Left and right: bin 0 whatever gy is; top and bottom: the middle; corners flat."""
    rng = np.random.default_rng(0)
    image = np.float32(rng.normal(size=(2, 24, 24, 3)))
    pixels = np.asarray(run(image, bins=bins, cell=1, window=0))
    np.testing.assert_allclose(pixels[:, :, 0, 1:-1][..., [0, -1]], 1, atol=1e-6)
    np.testing.assert_allclose(
        pixels[:, :, bins // 2][..., [0, -1], 1:-1], 1, atol=1e-6
    )
    assert not np.any(pixels[..., 0, 0])


@pytest.mark.parametrize("seed", range(3))
def test_standardising_an_image_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    image = np.float32(rng.normal(size=(1, 16, 16, 3)))
    scale, shift = np.float32([0.25, 4.0, 2.0]), np.float32(rng.normal(size=3))
    moved = image * scale + shift
    np.testing.assert_allclose(
        run(moved, **PUBLISHED), run(image, **PUBLISHED), atol=1e-3
    )


@pytest.mark.parametrize("bins", [2, 6, 9, 12])
def test_orientation_is_the_published_formula(bins):
    turn = np.linspace(0, 2 * np.pi, 2001)[:-1] + 1e-3  # no multiple of pi / bins
    gx, gy = np.float32(np.sin(turn)), np.float32(np.cos(turn))
    expected = np.floor(np.arctan2(gx, gy) / np.pi * bins) % bins
    np.testing.assert_array_equal(
        jax.jit(hog.orientation, static_argnums=2)(gx, gy, bins), expected
    )


def test_half_turns_belong_to_bin_0():
    gx, gy = np.float32([0, 0, -0.0, -0.0, 1e-30]), np.float32([1, -1, 1, -1, 1])
    assert not np.any(hog.orientation(gx, gy, 9))
    # A quarter and an eighth of a turn are edges of 12 bins.
    gx, gy = np.float32([1, -1, 1, -1, 1, -1]), np.float32([0, 0, 1, -1, -1, 1])
    np.testing.assert_array_equal(hog.orientation(gx, gy, 12), [6, 6, 3, 3, 9, 9])


def test_window():
    window = hog.gaussian_window(16)
    assert window.sum(dtype=float) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(window, window[::-1].T)
    assert window[7, 0] / window[7, 7] == pytest.approx(
        np.exp(-((7.5 / 8) ** 2 - (0.5 / 8) ** 2) / 2), rel=1e-6
    )


def test_order_of_a_patch():
    """Feature ((channel, bin), cell's row), cell's column; patches in raster order."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(2, 3, 9, 4, 6)).astype(np.float32)
    tokens = hog.to_patches(cells, 2)
    assert tokens.shape == (2, 6, 108)
    for channel, k, dy, dx in ((0, 0, 0, 1), (2, 5, 1, 0), (1, 8, 1, 1)):
        feature = ((channel * 9 + k) * 2 + dy) * 2 + dx
        for row, col in ((0, 2), (1, 1)):
            expected = cells[:, channel, k, 2 * row + dy, 2 * col + dx]
            np.testing.assert_array_equal(tokens[:, row * 3 + col, feature], expected)
    np.testing.assert_array_equal(hog.from_patches(tokens, (2, 3), 9, 2), cells)


def test_lines_lie_along_edges():
    """Bright on the left, dark on the right: the edge is upright."""
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[:, :, :5] = 1
    cells = run(image, bins=9, cell=9, window=0)
    picture = np.asarray(hog.render(cells, 9))[0, :, :, 0]
    assert picture.shape == (9, 9) and picture.max() <= 1
    np.testing.assert_array_equal(picture[:, 4], picture.max())
    assert not np.any(picture[:, [0, 1, -2, -1]])


@pytest.mark.parametrize("degrees", [10, 50, 90, 130, 170])
def test_glyphs_of_a_ramp_lie_across_its_gradient(degrees):
    """Of a wave whose brightness changes along one direction alone, y downwards."""
    along = np.deg2rad(degrees)
    y, x = np.mgrid[:32, :32]
    wave = np.sin(0.7 * (x * np.cos(along) + y * np.sin(along)))
    image = np.repeat(np.float32(wave)[None, ..., None], 3, -1)
    picture = np.asarray(hog.render(run(image, bins=9, cell=16, window=0), 33))[0]
    glyph = picture[:33, :33].mean(-1)
    dy, dx = np.mgrid[:33, :33] - 16
    # The axis of the light, by its second moments.
    turn = 0.5 * np.arctan2(
        2 * (glyph * dx * dy).sum(), (glyph * (dx**2 - dy**2)).sum()
    )
    apart = np.rad2deg(turn) - degrees - 90
    assert abs((apart + 90) % 180 - 90) < 11  # half a bin, and what spreads
