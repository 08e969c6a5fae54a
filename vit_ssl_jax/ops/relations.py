"""Spatial labels of shuffled patches, from their order alone (RelViT, 2022, section 3).

Token t shows the patch that stood at `order[t]` in raster order on a grid of (rows,
columns), square or not. Entry (i, j) of a pair label is what token i is to token j.
"""

import math

import jax
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


def arrange(scores, grid):
    """Puts patches where their relations say: logits `[B N N 9] -> [B N]` int32.

    Entry t is the place of token t in raster order; every place is taken once. How many
    patches a token is expected to lie below, less those above it, sorts the tokens
    into rows, and the same of left and right sorts a row. True relations give the true places.
    """
    b, n = scores.shape[:2]
    shares = jax.nn.softmax(scores, axis=-1).reshape(b, n, n, 3, 3)
    rows, cols = shares.sum(-1), shares.sum(-2)  # above, level, below; left, ...
    below, right = (x[..., 2] - x[..., 0] for x in (rows, cols))  # [B N N]
    below, right = (x.sum(2) - x.sum(1) for x in (below, right))  # i of j and j of i
    row = jnp.argsort(jnp.argsort(below, axis=1), axis=1) // grid[1]
    tokens = jnp.broadcast_to(jnp.arange(n), (b, n))
    order = jax.lax.sort((row, right, tokens), dimension=1, num_keys=2)[2]
    return jnp.argsort(order, axis=1).astype(jnp.int32)


def confusion(predicted, true):
    """Shares of the answers by the true relation: `[B N N], [B N N] -> [B 9 9]`.

    Row: what is true, column: what was said. A row sums to 1, or to 0 where a relation
    doesn't occur.
    """
    said, truth = (jax.nn.one_hot(x, RELATIONS) for x in (predicted, true))
    counts = jnp.einsum("bijt,bijs->bts", truth, said, precision="highest")
    return counts / jnp.maximum(counts.sum(-1, keepdims=True), 1.0)
