"""Bilinear resizing as products with matrices: torch's `align_corners=False`.

No antialiasing. As a matrix it may be taken together with other linear steps, and it is
made beforehand (numpy) for sides of any length.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.lru_cache(64)
def matrix(new, old):
    """Weights `[new old]` float32 (numpy, read-only) that resize a side."""
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0.0, old - 1.0)
    distance = np.abs(centre[:, None] - np.arange(old)[None])
    weights = np.float32(np.maximum(1.0 - distance, 0.0))
    weights.setflags(write=False)
    return weights


def resize(x, size):
    """Resizes maps: `[B h w C] -> [B H W C]` float32, `(H, W) = size`."""
    rows, cols = matrix(size[0], x.shape[1]), matrix(size[1], x.shape[2])
    return spread(x, rows, cols)


def spread(x, rows, cols):
    """Weighted sums of cells: `[B h w C], [H h], [W w] -> [B H W C]` float32."""
    exact = dict(precision=jax.lax.Precision.HIGHEST)
    x = jnp.einsum("yp,bpqc->byqc", rows, x.astype(jnp.float32), **exact)
    return jnp.einsum("xq,byqc->byxc", cols, x, **exact)
