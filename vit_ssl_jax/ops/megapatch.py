"""Mega-patches: an irregular grid of larger cells, each shrunk to a patch (RelViT, 2022).

Cuts lie between patches, so a cell is at least one patch high and wide.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.ops import images


def merge_at_random(key, image, patch, cells, reuse_rows):
    """Mega-patches of random cuts: `[B H W C] -> [B cells*P cells*P C]`.

    With `reuse_rows` columns are cut where rows are, as in the published code, which
    draws cuts for columns but doesn't use them. The image is a square then.
    """
    keys = jax.random.split(key)
    sides = (side // patch for side in image.shape[1:3])
    rows, cols = (draw_cuts(k, len(image), n, cells) for k, n in zip(keys, sides))
    return merge(image, rows, rows if reuse_rows else cols, patch)


def draw_cuts(key, batch, side, cells):
    """Borders of `cells` random segments of a side: `-> [B cells+1]` int32, in patches.

    0, then `cells - 1` different numbers out of `1 .. side - 1` in order, then `side`.
    """
    noise = jax.random.uniform(key, (batch, side - 1))
    inner = 1 + jnp.argsort(noise, axis=1)[:, : cells - 1].astype(jnp.int32)
    cuts = jnp.pad(jnp.sort(inner, axis=1), ((0, 0), (1, 0)))
    return jnp.pad(cuts, ((0, 0), (0, 1)), constant_values=side)


def merge(image, rows, cols, patch):
    """Resizes every cell to a patch: `[B H W C], [B s+1] cuts -> [B s*P s*P C]`.

    `rows` and `cols` are cuts in patches. Bilinear within the cell, half-pixel centres,
    no anti-aliasing (torch's `interpolate`).
    """
    rows, cols = (
        _matrix(cuts * patch, side, patch)
        for cuts, side in zip((rows, cols), image.shape[1:3])
    )
    return images.resample(image, rows, cols)


def _matrix(cuts, old, patch):
    """Weights of all cells of a side: `[B s+1]` in pixels `-> [B s*P old]`."""
    batch, cells = len(cuts), cuts.shape[1] - 1
    start, length = cuts[:, :-1].reshape(-1), jnp.diff(cuts, axis=1).reshape(-1)
    weights = images.resize_matrix(start, length, old, patch)
    return weights.reshape(batch, cells * patch, old)
