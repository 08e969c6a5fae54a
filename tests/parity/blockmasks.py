"""Block-wise masks against draws of SlowFast and mmpretrain: the same laws."""

import dataclasses
import functools

import jax
import numpy as np

from tests.parity import laws
from vit_ssl_jax.ops import blockwise

COMPAT = {"slowfast": "slowfast", "mm": "mmpretrain"}  # theirs -> ours


def statistics(golden):
    """Rows of `maskfeat_blockmask_stats`."""
    rows = []
    for name, compat in COMPAT.items():
        hide, blocks = draw(golden, name, compat)
        rows += [
            laws.histogram_row(golden, f"{name}/{array}", ours)
            for array, ours in histograms(golden, name, hide, blocks).items()
        ]
        both = hide.mean(0), golden.arrays[f"{name}/occupancy"]
        share = sum(both) / 2
        deviation = np.sqrt(2 * share * (1 - share) / len(hide))
        rows.append(laws.probability_row(golden, f"{name}/occupancy", *both, deviation))
    return rows


def draw(golden, name, compat):
    """As many masks as are stored, and their blocks: `[n H W], [n record 4]`."""
    c = golden.config
    if c["max_num_patches"] not in (None, c["num_masking_patches"]):
        raise ValueError("max_num_patches: our blocks have no other bound than count")
    grid = golden.arrays[f"{name}/occupancy"].shape
    law = dataclasses.replace(
        blockwise.make_law(grid, c["mask_ratio"], compat),
        count=c["num_masking_patches"],
        minimum=c["min_num_patches"],
        aspect=c["min_aspect"],
    )
    record = 2 * len(golden.arrays[f"{name}/hist_blocks"])  # more than there are
    sample = functools.partial(
        blockwise.blockwise, batch=c["draws"], law=law, record=record
    )
    hide, blocks = jax.jit(sample)(jax.random.key(0))
    return np.asarray(hide).reshape(-1, *grid), np.asarray(blocks)


def histograms(golden, name, hide, blocks):
    """Counts by the names of a group, of the shapes that are stored."""
    placed = (blocks[..., 0] > 0).sum(1)
    first, every = blocks[:, 0], blocks[blocks[..., 0] > 0]
    height, width, top, _ = every.T
    edges = golden.config["log_aspect_hist_edges"]
    bins = len(golden.arrays[f"{name}/hist_blocks"])

    def joint(array, *pair):
        return laws.joint(golden.arrays[f"{name}/{array}"].shape, *pair)

    return {
        "hist_masked": joint("hist_masked", hide.sum((1, 2))),
        "hist_blocks": np.bincount(placed, minlength=bins)[:bins],
        "hist_log_aspect": np.histogram(np.log(height / width), edges)[0],
        "hist_hw": joint("hist_hw", height, width),
        "hist_hw_first": joint("hist_hw_first", first[:, 0], first[:, 1]),
        "hist_top_given_h": joint("hist_top_given_h", height, top),
    }
