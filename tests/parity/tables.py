"""Position tables against facebookresearch/mae and facebookresearch/ijepa."""

import numpy as np

from tests.parity import ledger
from vit_ssl_jax.ops import posemb


def sincos(golden):
    """Rows of `sincos`: whole tables, rows, columns and checksums."""
    values = {}
    for side in golden.config["grids"]:
        for width in golden.config["dims"]:
            name = f"g{side}_d{width}"
            table = posemb.sincos((side, side), width)
            rows, columns = (
                golden.arrays[f"{name}/{axis}_idx"] for axis in ("rows", "cols")
            )
            values |= {
                f"{name}/full": table,
                f"{name}/rows": table[rows],
                f"{name}/cols": table[:, columns],
                f"{name}/sums_f64": checksums(np.float64(table)),
            }
    return ledger.compare(golden, values, ledger.TENSOR)


def checksums(table):
    """Sum, sum of squares, sums weighted by the 1-based column and row."""
    rows, columns = (np.arange(n) + 1 for n in table.shape)
    weighted = (table * columns).sum(), (table * rows[:, None]).sum()
    return np.stack([table.sum(), np.square(table).sum(), *weighted])
