"""Which tokens a method sees: ids and validity, drawn on the device, static shapes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


def random_split(key, batch, tokens, kept):
    """Uniform split into kept and hidden tokens: `-> [B K], [B N-K]` int32.

    Kept ids come in the order of their noise, not in raster order (MAE, section 3).
    """
    return split_by_noise(jax.random.uniform(key, (batch, tokens)), kept)


def split_by_noise(noise, kept):
    """Splits by rank of the noise: `[B N] -> [B K], [B N-K]` int32, smallest kept."""
    order = jnp.argsort(noise, axis=1).astype(jnp.int32)
    return order[:, :kept], order[:, kept:]


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """The law of a block's (height, width) under one shared u ~ U(0, 1).

    `edges [S]` are the upper ends of the intervals of u (the last is 1), `sizes
    [S 2]` their (height, width).
    """

    edges: np.ndarray
    sizes: np.ndarray

    @property
    def largest(self):
        """Tokens of the largest block."""
        return int(self.sizes.prod(axis=1).max())

    @property
    def smallest(self):
        """Tokens of the smallest block."""
        return int(self.sizes.prod(axis=1).min())

    def draw(self, key):
        """One (height, width), int32 scalars."""
        u = jax.random.uniform(key)
        i = jnp.searchsorted(jnp.asarray(self.edges[:-1], jnp.float32), u, "right")
        return tuple(jnp.asarray(self.sizes, jnp.int32)[i])


def block_size(u, grid, scale, aspect):
    """Block (height, width) at u: I-JEPA's rule, one number for scale and aspect.

    `k = int(N s(u))` tokens at ratio `r(u)`: `round(sqrt(k r)), round(sqrt(k / r))`,
    lowered until both are below the grid's sides (I-JEPA `multiblock.py`).
    """
    k = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    r = aspect[0] + u * (aspect[1] - aspect[0])
    height, width = round(math.sqrt(k * r)), round(math.sqrt(k / r))
    return min(height, grid[0] - 1), min(width, grid[1] - 1)


def block_sizes(grid, scale, aspect):
    """The exact `BlockSizes` law of a grid.

    The size changes only where `k` or a rounded side does, so evaluating between all
    such values of u gives every interval, however short.
    """
    n = grid[0] * grid[1]
    ds, dr = scale[1] - scale[0], aspect[1] - aspect[0]
    edges = {1.0}
    tokens = range(int(n * scale[0]), int(n * scale[1]) + 2)
    if ds:
        edges |= {(k / n - scale[0]) / ds for k in tokens}
    if dr:
        for k in tokens:
            for side in range(max(grid) + 1):
                half = (side + 0.5) ** 2
                ratios = (half / k, k / half) if k else ()
                edges |= {(r - aspect[0]) / dr for r in ratios}
    edges = np.array(sorted(e for e in edges if 0.0 < e <= 1.0))
    middles = (np.concatenate([[0.0], edges[:-1]]) + edges) / 2
    sizes = np.array([block_size(u, grid, scale, aspect) for u in middles])
    last = np.append(np.any(sizes[1:] != sizes[:-1], axis=1), True)
    return BlockSizes(edges[last], sizes[last])


def place_blocks(key, shape, grid, size, inclusive):
    """Uniform top-left corners: `-> top, left`, int32 of `shape`.

    `inclusive=True` reaches all `(H-h+1)(W-w+1)` positions; False is the published
    sampler's exclusive bound, which never reaches the last row and column.
    """
    keys = jax.random.split(key)
    last = [side - length + int(inclusive) for side, length in zip(grid, size)]
    return tuple(jax.random.randint(k, shape, 0, n) for k, n in zip(keys, last))


def block_ids(top, left, size, grid, bound):
    """Raster ids of blocks: `[...], (h, w) -> [... bound]` int32 ids and bool validity.

    Ids beyond h*w repeat the block's last token and are invalid.
    """
    height, width = size
    j = jnp.broadcast_to(jnp.arange(bound, dtype=jnp.int32), (*top.shape, bound))
    valid = j < height * width
    j = jnp.minimum(j, height * width - 1)
    ids = (top[..., None] + j // width) * grid[1] + left[..., None] + j % width
    return ids, valid


def span(start, length, side):
    """Positions in `start <= i < start + length`: `[...] -> [... side]` bool."""
    i = jnp.broadcast_to(jnp.arange(side), (*start.shape, side))
    return (i >= start[..., None]) & (i < start[..., None] + length)


def block_map(top, left, size, grid):
    """Cells covered by blocks: `[...], (h, w) -> [... H W]` bool."""
    rows, cols = span(top, size[0], grid[0]), span(left, size[1], grid[1])
    return rows[..., :, None] & cols[..., None, :]


def map_to_ids(covered, bound):
    """Ids of the true cells in raster order: `[... N] -> [... bound]` int32, bool."""
    ids = jnp.argsort(~covered, axis=-1, stable=True)[..., :bound].astype(jnp.int32)
    return ids, jnp.take_along_axis(covered, ids, axis=-1)


def keep_at_most(key, covered, bound):
    """Drops true cells at random down to `bound`: `[... N] -> [... N]` bool."""
    noise = jnp.where(covered, jax.random.uniform(key, covered.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    return covered & (rank < bound)


def keep_group_minimum(covered, group):
    """The published trim: `[B E N] -> [B E N]` bool.

    Every image keeps its first K cells in raster order, K the smallest count among
    its group of `group` consecutive images (and their E contexts); I-JEPA's collator
    does this per batch of one GPU.
    """
    batch = len(covered)
    counts = covered.sum(-1).min(-1)  # [B]
    groups = jnp.arange(batch) // group
    least = jax.ops.segment_min(counts, groups, num_segments=-(-batch // group))
    return covered & (jnp.cumsum(covered, -1) <= least[groups][:, None, None])
