"""Histograms of oriented gradients (Dalal & Triggs, 2005) as MaskFeat has them.

Per colour channel, hard votes, every cell normed by itself and no blocks (Wei et al.,
2022, section 3.2; SlowFast `operators.py`, mmpretrain `maskfeat.py`).

B batch, H W C image, R Q rows and columns of cells, K cells along a patch's side.
"""

import jax
import jax.numpy as jnp
import numpy as np

EPS = 1e-12  # smallest norm that a cell is divided by


def hog(image, *, bins, cell, window):
    """Histograms of cells of `cell` pixels: `[B H W C] -> [B C bins R Q]` float32.

    Unit length over the bins, or zero where a cell is flat. `window` pixels is the
    side of a Gaussian that weights the votes and is tiled over the image; 0: none.
    `cell` and `window` must divide the sides of the image.
    """
    gx, gy = differences(image.astype(jnp.float32).transpose(0, 3, 1, 2))
    votes = jnp.sqrt(gx * gx + gy * gy)
    if window:
        tiles = [side // window for side in votes.shape[2:]]
        votes = votes * np.tile(gaussian_window(window), tiles)[None, None]
    sums = sum_votes(orientation(gx, gy, bins), votes, bins, cell)
    norm = jnp.sqrt(jnp.square(sums).sum(2, keepdims=True))
    return sums / jnp.maximum(norm, EPS)


def differences(x):
    """Sobel's left - right and top - bottom: `[B C H W] -> gx, gy [B C H W]`.

    The image is mirrored without its edge. Differences come before sums, so what is
    equal cancels exactly: gx in the first and last column, both in a flat cell.
    """
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
    gx = x[..., :-2] - x[..., 2:]
    gy = x[..., :-2, :] - x[..., 2:, :]
    gx = gx[..., :-2, :] + 2.0 * gx[..., 1:-1, :] + gx[..., 2:, :]
    gy = gy[..., :-2] + 2.0 * gy[..., 1:-1] + gy[..., 2:]
    return gx, gy


def orientation(gx, gy, bins):
    """Bin of the unsigned direction, `floor(atan2(gx, gy) / pi * bins) mod bins`.

    A bin is the number of edges `k pi / bins` that the direction has reached; with
    gx >= 0 this is `gx cot(k pi / bins) >= gy`. No angle is computed: XLA makes one
    product of `/ pi * bins`, and for 6 or 12 bins a half turn then falls short of the
    last edge, which takes border pixels out of bin 0. int8, of any shape.
    """
    gy = jnp.where(gx > 0, gy, jnp.where(gx < 0, -gy, jnp.abs(gy)))
    gx = jnp.abs(gx)
    angles = np.arange(1, bins) * (np.pi / bins)
    edges = np.float32(np.cos(angles) / np.sin(angles))
    return sum((gx * edge >= gy).astype(jnp.int8) for edge in edges)


def gaussian_window(side):
    """A Gaussian of deviation `side / 2` pixels and sum 1: `[side side]` float32."""
    x = np.arange(side) - (side - 1) / 2
    row = np.exp(-0.5 * np.square(x / (side // 2)))
    window = np.outer(row, row)
    return np.float32(window / window.sum())


def sum_votes(index, votes, bins, cell):
    """Votes of every bin in every cell: twice `[B C H W] -> [B C bins R Q]`.

    One row of cells at a time, so that votes times bins stay in a CPU's cache: three
    times as fast there as all at once.
    """
    b, c, height, width = votes.shape

    def split(x):
        return jnp.moveaxis(x.reshape(b, c, height // cell, cell, width), 2, 0)

    def add(row):
        index, votes = (x[:, :, None] for x in row)  # [B C 1 cell W]
        hits = index == jnp.arange(bins, dtype=index.dtype).reshape(1, 1, bins, 1, 1)
        sums = jnp.where(hits, votes, 0.0).sum(-2)
        return sums.reshape(b, c, bins, width // cell, cell).sum(-1)

    return jnp.moveaxis(jax.lax.map(add, (split(index), split(votes))), 0, 3)


def to_patches(cells, per_side):
    """A patch's cells as one vector: `[B C bins R Q] -> [B N C*bins*K*K]`.

    `per_side` is K. The order is (channel, bin, cell's row, cell's column).
    """
    b, c, bins, rows, cols = cells.shape
    k = per_side
    x = cells.reshape(b, c, bins, rows // k, k, cols // k, k)
    x = x.transpose(0, 3, 5, 1, 2, 4, 6)
    return x.reshape(b, (rows // k) * (cols // k), c * bins * k * k)


def from_patches(vectors, grid, bins, per_side):
    """Inverse of `to_patches` for `grid` (rows, columns) of patches."""
    (rows, cols), k = grid, per_side
    x = vectors.reshape(len(vectors), rows, cols, -1, bins, k, k)
    x = x.transpose(0, 3, 4, 1, 5, 2, 6)
    return x.reshape(*x.shape[:3], rows * k, cols * k)


def render(cells, cell):
    """A picture: every bin a line along its edge: `[B C bins R Q] -> [B H W C]`.

    Lines are as bright as their votes, where they cross as the brightest; the result is
    clipped to [0, 1].
    """
    b, c, bins, rows, cols = cells.shape
    angles = ((np.arange(bins) + 0.5) * (np.pi / bins)).reshape(-1, 1, 1)
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2
    across = np.abs(x * np.sin(angles) + y * np.cos(angles))  # to the line, pixels
    lines = np.float32(np.clip(1.0 - across, 0.0, 1.0))
    picture = 0.0
    for k, line in enumerate(lines):
        drawn = jnp.einsum("bcrq,yx->bryqxc", cells[:, :, k], line, precision="highest")
        picture = jnp.maximum(picture, drawn)
    return jnp.clip(picture.reshape(b, rows * cell, cols * cell, c), 0.0, 1.0)
