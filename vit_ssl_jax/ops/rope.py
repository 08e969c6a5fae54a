"""Rotary positions of patches (Su et al., 2021), as DINOv3 (2025) takes them."""

import jax.numpy as jnp
import numpy as np


def table(grid, width, base):
    """Cosines and sines of every patch of a grid: float32 `[N 2 E]`, E the head's width.

    Centres of patches lie in [-1, 1] on each axis; the frequencies of an axis are E/4
    powers of `base`, their angles twice for the two halves of a head.
    """
    rows, cols = ((np.arange(n) + 0.5) / n * 2 - 1 for n in grid)
    places = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    periods = base ** (np.arange(width // 4) / (width // 4))
    angles = 2 * np.pi * places[:, :, None] / periods
    angles = np.tile(angles.reshape(len(places), width // 2), 2)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def with_still(table, count):
    """Puts `count` tokens without a position in front: `[B N 2 E] -> [B count+N 2 E]`."""
    still = jnp.array([[1.0], [0.0]])
    shape = (len(table), count, *table.shape[2:])
    return jnp.concatenate([jnp.broadcast_to(still, shape), table], axis=1)


def rotate(x, rotations):
    """Rotates queries or keys: `[B N A E], [B|1 N 2 E] -> [B N A E]`, in float32."""
    cos, sin = rotations[:, :, 0, None], rotations[:, :, 1, None]
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (wide * cos + turned * sin).astype(x.dtype)
