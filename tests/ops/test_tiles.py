"""Tiles against slices, scikit-image and hand-worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import transform

from vit_ssl_jax.ops import tiles


@pytest.fixture(scope="module")
def image():
    """Two images of 13 x 10 px."""
    return np.random.default_rng(0).random((2, 13, 10, 3), np.float32)


@pytest.fixture(scope="module")
def cells():
    """Two images of four cells of 9 px."""
    return np.random.default_rng(1).random((2, 4, 9, 9, 3), np.float32)


def test_cells_are_those_of_the_grid_in_raster_order(image):
    out = tiles.cut_cells(jnp.asarray(image), 3)
    assert out.shape == (2, 9, 4, 3, 3)
    for i in range(9):
        r, c = divmod(i, 3)
        cell = image[:, 4 * r : 4 * r + 4, 3 * c : 3 * c + 3]
        np.testing.assert_array_equal(out[:, i], cell)


def test_cells_join_to_the_image(image):
    whole = image[:, :12, :9]
    np.testing.assert_array_equal(
        tiles.join_cells(tiles.cut_cells(jnp.asarray(image), 3), 3), whole
    )


OFFSET = np.array([[[0, 0], [3, 3], [1, 2], [3, 0]], [[2, 1], [0, 3], [3, 3], [1, 1]]])


def test_a_tile_is_cut_where_its_offset_says(cells):
    out = tiles.cut_tiles(jnp.asarray(cells), jnp.asarray(OFFSET), 6)
    assert out.shape == (2, 4, 6, 6, 3)
    for b in range(2):
        for t in range(4):
            top, left = OFFSET[b, t]
            cut = cells[b, t, top : top + 6, left : left + 6]
            np.testing.assert_array_equal(out[b, t], cut)


def test_an_enlarged_tile_is_the_cut_resized_bilinearly(cells):
    offset = np.stack([OFFSET] * (cells.shape[-1] - 1) + [0 * OFFSET], axis=2)
    out = tiles.enlarge_tiles(jnp.asarray(cells), jnp.asarray(offset), 6)
    assert out.shape == cells.shape
    for b in range(2):
        for t in range(4):
            top, left = OFFSET[b, t]
            cut = cells[b, t, top : top + 6, left : left + 6].copy()
            cut[..., -1] = cells[b, t, :6, :6, -1]  # each channel at its own place
            expected = transform.resize(
                cut, (9, 9), order=1, mode="edge", anti_aliasing=False
            )
            np.testing.assert_allclose(out[b, t], expected, atol=1e-5)


def test_tiles_are_selected_image_by_image(cells):
    ids = np.array([[3, 0], [1, 1]])
    out = tiles.take_tiles(jnp.asarray(cells), jnp.asarray(ids))
    np.testing.assert_array_equal(out[0], cells[0][[3, 0]])
    np.testing.assert_array_equal(out[1], cells[1][[1, 1]])


def test_channels_spread_within_their_cell():
    offset = jax.random.randint(jax.random.key(0), (200, 9, 2), 0, 8)
    out = np.asarray(tiles.spread_channels(jax.random.key(1), offset, 7, 2))
    assert out.shape == (200, 9, 3, 2) and out.min() == 0 and out.max() == 7
    moved = out - np.asarray(offset)[:, :, None]
    inner = (np.asarray(offset) >= 2) & (np.asarray(offset) <= 5)
    counts = np.bincount(moved.swapaxes(2, 3)[inner].ravel() + 2)
    assert len(counts) == 5
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


@pytest.mark.parametrize(("low", "high"), [(-2, 2), (-2, 1)])
def test_colours_shift_by_every_integer_and_no_other(low, high):
    grey = jnp.full((50, 9, 2, 2, 3), 0.5)
    out = tiles.shift_colours(jax.random.key(0), grey, low, high)
    shift = 255 * (np.asarray(out) - 0.5)
    assert np.ptp(shift, axis=(2, 3)).max() == 0  # one number a channel of a tile
    values, counts = np.unique(np.round(shift[:, :, 0, 0], 3), return_counts=True)
    np.testing.assert_allclose(values, np.arange(low, high + 1), atol=2e-3)
    expected = counts.sum() / len(counts)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_shifted_colours_stay_in_range(level):
    plain = jnp.full((8, 9, 1, 1, 3), level)
    out = np.asarray(tiles.shift_colours(jax.random.key(0), plain, -2, 2))
    assert out.min() >= 0 and out.max() <= 1 and np.ptp(out) > 0


def test_green_against_magenta_is_gone_and_grey_stays():
    pixels = jnp.array([[0.5, 0.5, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    out = tiles.project_colours(pixels)
    # I - a^T a / 6 by hand: green is (0, 1, 0) - 2/6 (-1, 2, -1), the rest its opposite.
    third = 1 / 3
    expected = [[0.5] * 3, [third] * 3, [2 * third] * 3]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    again = tiles.project_colours(out)
    np.testing.assert_allclose(again, out, atol=1e-6)


def test_one_channel_is_kept_and_the_others_are_faint_noise():
    x = np.random.default_rng(2).normal(size=(20, 9, 32, 32, 3)).astype(np.float32)
    x = x * np.float32([1.0, 2.0, 4.0])
    x = np.asarray(tiles.centre(jnp.asarray(x)))
    out = np.asarray(tiles.drop_colours(jax.random.key(0), jnp.asarray(x)))
    kept = np.all(out == x, axis=(2, 3))  # [B T C]
    np.testing.assert_array_equal(kept.sum(-1), np.ones((20, 9)))
    counts = kept.sum((0, 1))
    assert np.abs(counts - 60).max() < 5 * np.sqrt(60)
    std = (x.std(axis=(2, 3)) * kept).sum(-1, keepdims=True)
    ratio = (out.std(axis=(2, 3)) / std)[~kept]
    np.testing.assert_allclose(ratio, 0.01, rtol=0.1)  # 1024 pixels: 2.2 % a sigma
    mean = (out.mean(axis=(2, 3)) / std)[~kept]
    assert np.abs(mean).max() < 5 * 0.01 / 32
    noise = out[0, 0][..., ~kept[0, 0]].reshape(-1, 2)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.15  # two noises, not one twice


def test_a_centred_tile_has_mean_colour_zero(cells):
    out = np.asarray(tiles.centre(jnp.asarray(cells)))
    np.testing.assert_allclose(out.mean(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(out[0, 1], cells[0, 1] - cells[0, 1].mean((0, 1)))


@pytest.mark.parametrize(("channels", "axis"), [(True, (2, 3)), (False, (2, 3, 4))])
def test_a_standardised_tile_has_mean_0_and_deviation_1(cells, channels, axis):
    out = np.asarray(tiles.standardise(jnp.asarray(cells), channels=channels))
    np.testing.assert_allclose(out.mean(axis=axis), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axis=axis, ddof=1), 1, rtol=1e-5)
    moved = tiles.standardise(jnp.asarray(3 * cells + 2), channels=channels)
    np.testing.assert_allclose(moved, out, atol=1e-5)


def test_standardising_by_hand():
    """1, 2, 3, 4 have mean 2.5 and variance 5/3."""
    x = jnp.float32([1, 2, 3, 4]).reshape(1, 1, 2, 2, 1)
    expected = [-1.1619, -0.3873, 0.3873, 1.1619]
    out = tiles.standardise(x, channels=True)
    np.testing.assert_allclose(out.ravel(), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [True, False])
def test_a_plain_tile_becomes_zero_and_not_noise(channels):
    x = jnp.broadcast_to(
        jnp.float32([0.3, -0.17]).reshape(1, 2, 1, 1, 1), (1, 2, 80, 80, 3)
    )
    out = tiles.standardise(x, channels=channels)
    np.testing.assert_allclose(out, 0, atol=1e-5)


def test_some_tiles_are_shrunk_and_enlarged_again():
    """Each by Pillow's linear filter, to a side of 10 px or more; the rest stay."""
    shape, side = (40, 3, 16, 16, 1), 16
    x = np.random.default_rng(2).random(shape, np.float32)
    out = np.asarray(tiles.coarsen(jax.random.key(0), jnp.asarray(x), 0.33))
    found = []
    for before, after in zip(x.reshape(-1, 16, 16), out.reshape(-1, 16, 16)):
        if np.array_equal(before, after):
            continue
        whole = Image.fromarray(before)
        for small in range(10, side):
            there = whole.resize((small, small), Image.Resampling.BILINEAR)
            back = np.asarray(there.resize((side, side), Image.Resampling.BILINEAR))
            if np.abs(back - after).max() < 2e-5:
                found.append(small)
    changed = (out != x).any((2, 3, 4))
    assert len(found) == changed.sum() and set(found) == set(range(10, 16))
    assert 0.2 < changed.mean() < 0.46  # 40 of 120 tiles, four deviations
    plain = jnp.full(shape, 0.5)
    np.testing.assert_allclose(
        tiles.coarsen(jax.random.key(1), plain, 1.0), plain, rtol=1e-6
    )
    tiny = jnp.asarray(x[:, :, :8, :8])
    assert tiles.coarsen(jax.random.key(1), tiny, 1.0) is tiny
