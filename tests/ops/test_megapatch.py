"""Mega-patches: the law of their cuts, and pixels against a resize written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vit_ssl_jax.ops import megapatch


@pytest.mark.parametrize(("side", "cells"), [(4, 2), (5, 3), (7, 5), (3, 1), (6, 6)])
def test_all_cuts_are_equally_likely(side, cells):
    """A segment is a patch long at least; every choice of borders turns up alike."""
    cuts = np.asarray(megapatch.draw_cuts(jax.random.key(0), 3000, side, cells))
    assert cuts.shape == (3000, cells + 1)
    assert np.all(cuts[:, 0] == 0) and np.all(cuts[:, -1] == side)
    assert np.all(np.diff(cuts, axis=1) >= 1)
    choices = list(itertools.combinations(range(1, side), cells - 1))
    expected = 3000 / len(choices)
    found = [np.all(cuts[:, 1:-1] == c, axis=1).sum() for c in choices]
    assert sum(found) == 3000
    assert np.abs(np.array(found) - expected).max() < 5 * np.sqrt(expected)


def resize(cell, patch):
    """Bilinear, half-pixel centres, no anti-aliasing: `[h w C] -> [P P C]`."""
    places = [
        np.clip((np.arange(patch) + 0.5) * n / patch - 0.5, 0, n - 1)
        for n in cell.shape[:2]
    ]
    grid = np.meshgrid(*places, indexing="ij")
    channels = [
        ndimage.map_coordinates(cell[..., c], grid, order=1)
        for c in range(cell.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def test_every_cell_is_resized_on_its_own():
    rng = np.random.default_rng(0)
    image = rng.random((2, 20, 16, 3), np.float32)  # 5x4 patches of 4 pixels
    rows = np.array([[0, 1, 3, 5], [0, 2, 3, 5]])
    cols = np.array([[0, 2, 3, 4], [0, 1, 2, 4]])
    ours = jax.jit(megapatch.merge, static_argnums=3)(image, rows, cols, 4)
    assert ours.shape == (2, 12, 12, 3)
    for b, i, j in itertools.product(range(2), range(3), range(3)):
        (top, bottom), (left, right) = 4 * rows[b, i : i + 2], 4 * cols[b, j : j + 2]
        expected = resize(image[b, top:bottom, left:right], 4)
        cell = ours[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        np.testing.assert_allclose(cell, expected, atol=1e-6)


def test_cells_of_one_patch_are_the_image():
    image = np.random.default_rng(0).random((1, 12, 8, 3), np.float32)
    rows, cols = jnp.arange(4)[None], jnp.arange(3)[None]
    out = megapatch.merge(image, rows, cols, 4)
    np.testing.assert_allclose(out, image, atol=1e-7)


@pytest.mark.parametrize("reuse_rows", [True, False])
def test_columns_have_cuts_of_their_own_unless_rows_are_reused(reuse_rows):
    """A symmetric image stays one where rows and columns are cut alike."""
    ramp = np.arange(32, dtype=np.float32)
    image = np.broadcast_to(
        (ramp[:, None] * ramp[None])[None, ..., None], (8, 32, 32, 1)
    )
    out = megapatch.merge_at_random(jax.random.key(0), image, 4, 5, reuse_rows)
    assert out.shape == (8, 20, 20, 1)
    turned = np.swapaxes(out, 1, 2)
    assert np.allclose(out, turned, atol=1e-3) == reuse_rows
    again = megapatch.merge_at_random(jax.random.key(0), image, 4, 5, reuse_rows)
    np.testing.assert_array_equal(out, again)
