"""Spatial labels of shuffled patches, from their order alone (RelViT, 2022, section 3).

Token t shows the patch that stood at `order[t]` in raster order on a grid of (rows,
columns), square or not. Entry (i, j) of a pair label is what token i is to token j.
"""

import math

import jax.numpy as jnp

RELATIONS = 9  # up-left, up, up-right, left, itself, right, down-left, down, down-right


def relations(order, grid):
    """Directions from patch j to patch i: `[B N] -> [B N N]` int32 in 0..8.

    `3 (sign(r_i - r_j) + 1) + sign(c_i - c_j) + 1`: only directions count, so all
    patches above and left of j are class 0, however far. The patch itself is class 4.
    """
    rows, cols = jnp.divmod(order, grid[1])
    down, right = (jnp.sign(x[:, :, None] - x[:, None, :]) for x in (rows, cols))
    return (3 * (down + 1) + right + 1).astype(jnp.int32)


def distances(order, grid):
    """Distance on the grid: `[B N] -> [B N N]` float32, -1 (itself) to 1 (the largest).

    The largest is the grid's diagonal.
    """
    rows, cols = (x.astype(jnp.float32) for x in jnp.divmod(order, grid[1]))
    down, right = (x[:, :, None] - x[:, None, :] for x in (rows, cols))
    longest = math.hypot(grid[0] - 1, grid[1] - 1)
    return 2.0 * jnp.sqrt(down**2 + right**2) / longest - 1.0


def angles(order, grid):
    """Angle that two patches subtend: `[B N] -> [B N N]` float32 in [-1, 1].

    It is not the direction from i to j: both are seen from a point outside the image,
    half a grid up and left of patch 0, so patch (r, c) stands at `(c + columns / 2,
    r + rows / 2)`. As published, the cosine is `P_i P_j / (|P_i| |P_j| + 1e-4)`, with
    which two patches in line are not quite at -1, and the largest angle becomes 1.
    """
    rows, cols = (x.astype(jnp.float32) for x in jnp.divmod(order, grid[1]))
    x, y = cols + grid[1] / 2, rows + grid[0] / 2
    (xi, xj), (yi, yj) = ((v[:, :, None], v[:, None, :]) for v in (x, y))
    dot, cross = xi * xj + yi * yj, xi * yj - yi * xj
    norms = jnp.sqrt((xi**2 + yi**2) * (xj**2 + yj**2))
    # 1 - cosine without cancellation, which arccos near 1 would make much of:
    # |P_i| |P_j| - dot = cross^2 / (|P_i| |P_j| + dot).
    versine = (cross**2 / (norms + dot) + 1e-4) / (norms + 1e-4)
    angle = 2.0 * jnp.arcsin(jnp.sqrt(versine / 2.0))
    angle = jnp.where(order[:, :, None] == order[:, None, :], 0.0, angle)
    return 2.0 * angle / angle.max(axis=(1, 2), keepdims=True) - 1.0
