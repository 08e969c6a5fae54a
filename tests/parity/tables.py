"""Position tables against facebookresearch/mae and facebookresearch/ijepa."""

import itertools

import numpy as np

from tests.parity import ledger
from vit_ssl_jax.ops import posemb


def sincos(golden):
    """Rows of `sincos`: whole tables, rows, columns and checksums."""
    values, read = {}, golden.arrays
    for side, width in itertools.product(golden.config["grids"], golden.config["dims"]):
        name = f"g{side}_d{width}"
        table = posemb.sincos((side, side), width)
        values[f"{name}/full"] = table
        values[f"{name}/sums_f64"] = checksums(np.float64(table))
        if f"{name}/rows_idx" in read:
            values[f"{name}/rows"] = table[read[f"{name}/rows_idx"]]
        if f"{name}/cols_idx" in read:
            values[f"{name}/cols"] = table[:, read[f"{name}/cols_idx"]]
    return ledger.compare(golden, values, ledger.TENSOR)


def checksums(table):
    """Sum, sum of squares, sums weighted by the 1-based column and row."""
    rows, columns = (np.arange(n) + 1 for n in table.shape)
    weighted = (table * columns).sum(), (table * rows[:, None]).sum()
    return np.stack([table.sum(), np.square(table).sum(), *weighted])
