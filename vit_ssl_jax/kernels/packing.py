"""Several matrices as one, so that one collective sends them all."""

import math

import jax
import jax.numpy as jnp


def shape(matrices):
    """Shape `(rows, columns)` of what `pack` makes of matrices `[r w]`."""
    columns = math.gcd(*(x.shape[-1] for x in matrices))
    return sum(math.prod(x.shape) for x in matrices) // columns, columns


def pack(matrices):
    """Matrices `[r w]` of one dtype as `[rows columns]`.

    The columns are the greatest common divisor of all w; wider ones are cut up.
    """
    _, columns = shape(matrices)
    return jnp.concatenate([_cut(x, columns) for x in matrices])


def _cut(x, columns):
    rows, width = x.shape
    if width == columns:
        return x
    pieces = x.reshape(rows, width // columns, columns)
    return jnp.swapaxes(pieces, 0, 1).reshape(-1, columns)


def pieces(packed, matrices):
    """The matrices in `[... rows columns]` as they lie there: `[... pieces r columns]`."""
    *lead, _, columns = packed.shape
    stretches, start = [], 0
    for matrix in matrices:
        rows, width = matrix.shape
        count = rows * width // columns
        x = jax.lax.slice_in_dim(packed, start, start + count, axis=-2)
        stretches.append(x.reshape(*lead, width // columns, rows, columns))
        start += count
    return stretches


def whole(x):
    """One of `pieces` as a matrix: `[... pieces r columns] -> [... r w]`."""
    *lead, count, rows, columns = x.shape
    return jnp.swapaxes(x, -3, -2).reshape(*lead, rows, count * columns)
