"""Position tables and their resampling."""

import jax
import jax.numpy as jnp
import numpy as np


def sincos(grid, width, endpoint=False):
    """Fixed 2-D sine-cosine table: `(rows, cols), D -> [N D]` float32 (numpy).

    Token (r, c) gets `[sin(c w), cos(c w), sin(r w), cos(r w)]`, the column first,
    with frequencies `w_k = 10000^(-k / m)`, `m = D / 4`. That is the table of MAE and
    I-JEPA. With `endpoint=True` the exponent is `-k / (m - 1)`: big_vision's table.
    Raises ValueError where four does not divide D.
    """
    if width % 4:
        raise ValueError(f"a sine-cosine table needs a width divisible by 4: {width=}")
    m = width // 4
    omega = 10000.0 ** (-np.arange(m) / ((m - 1) if endpoint else m))
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    x, y = np.outer(cols, omega), np.outer(rows, omega)
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table.astype(np.float32)


def with_cls(table, cls):
    """A class token's row of zeros in front, if there is one: `[N D] -> [1 N(+1) D]`."""
    return np.pad(table, ((int(cls), 0), (0, 0)))[None]


def bicubic_matrix(old, new, excess=0.0, a=-0.75):
    """Weights `[new old]` of torch's bicubic: half-pixel centres, no antialiasing.

    `excess`: what a scale factor of `(new + excess) / old` has too much; torch samples
    by the factor that it was given, not by the sizes (DINO gives 0.1).
    """
    centre = (np.arange(new) + 0.5) * old / (new + excess) - 0.5
    left = np.floor(centre).astype(int)
    weights = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        d = np.abs(centre - (left + offset))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        index = np.clip(left + offset, 0, old - 1)
        np.add.at(weights, (np.arange(new), index), np.where(d <= 1, near, far))
    return weights


def resample(table, old, new, antialias=False):
    """Resamples a position table: `[n + rows*cols, D], grid, grid -> [n + N' D]`.

    Bicubic with a = -0.75 and no antialiasing, as MAE and DeiT do for fine-tuning at
    another resolution (MAE `interpolate_pos_embed`). With `antialias` it is a = -0.5
    and antialiased, as in timm (`resample_abs_pos_embed`). Leading rows that are no grid
    position (class token) are kept. The same grid returns the table unchanged.
    """
    table = np.asarray(table)
    if tuple(old) == tuple(new):
        return table
    prefix = len(table) - old[0] * old[1]
    if prefix < 0:
        raise ValueError(f"a table of {len(table)} rows can't hold the grid {old}")
    patches = table[prefix:].reshape(*old, -1)
    if antialias:
        out = jax.image.resize(patches, (*new, patches.shape[-1]), "bicubic")
        out = np.asarray(out).reshape(new[0] * new[1], -1)
        return np.concatenate([table[:prefix], out.astype(table.dtype)])
    patches = patches.astype(np.float64)
    rows, cols = bicubic_matrix(old[0], new[0]), bicubic_matrix(old[1], new[1])
    out = np.einsum("ir,jc,rcd->ijd", rows, cols, patches).reshape(new[0] * new[1], -1)
    return np.concatenate([table[:prefix], out.astype(table.dtype)])


def resize(table, old, new, weights=None):
    """Resizes a table within a program: `[1 N D], grid, grid -> [1 N' D]`.

    Bilinearly, or by the `weights` of rows and of columns, `[new old]` each.
    """
    table = table.reshape(1, *old, -1)
    if weights is None:
        table = jax.image.resize(table, (1, *new, table.shape[-1]), "bilinear")
    else:
        rows, cols = (jnp.asarray(w, table.dtype) for w in weights)
        with jax.named_scope("resample"):
            table = jnp.einsum(
                "ir,jc,xrcd->xijd", rows, cols, table, precision="highest"
            )
    return table.reshape(1, new[0] * new[1], -1)
