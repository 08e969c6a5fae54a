"""I-JEPA's mask statistics against draws of its collator."""

import functools

import jax
import numpy as np

from tests.parity import laws, ledger
from vit_ssl_jax.ops import masks, multiblock

AT_ONCE = 200  # images drawn at a time
COMMON = 5  # expected draws of a cell that say how alike draws are
IMAGES = 20_000  # of ours behind the statistics of a batch size
BATCHES = 100  # or as many as these hold, if more


def sampler(c):
    """`(key, batch, trim_batch) -> views` with the numbers of a case, as published."""
    grid = tuple(c["grid"])
    sizes = {
        "context": masks.block_sizes(grid, c["enc_mask_scale"], (1.0, 1.0)),
        "target": masks.block_sizes(grid, c["pred_mask_scale"], c["aspect_ratio"]),
    }
    sample = functools.partial(
        multiblock.multiblock,
        grid=grid,
        num_contexts=c["nenc"],
        num_targets=c["npred"],
        min_keep=c["min_keep"],
        max_context=0,
        official=True,
        **sizes,
    )
    return sample, sizes


def draw(sample, batch, count):
    """`count` batches on the host: `[count batch ...]`."""
    keys = jax.random.split(jax.random.key(batch), count)
    one = functools.partial(sample, batch=batch, trim_batch=batch)
    chunk = max(1, AT_ONCE // batch)
    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=chunk))
    return jax.tree.map(np.asarray, run(keys))


def blocks(ids, columns):
    """Top, left, height and width of blocks by their ids `[... bound]`."""
    top, left = np.divmod(ids[..., 0], columns)
    bottom, right = np.divmod(ids[..., -1], columns)  # padding repeats the last token
    return top, left, bottom - top + 1, right - left + 1


def occupancy(ids, valid, grid):
    """Cells of every image: `[images ... n] -> [images rows columns]` bool."""
    cells = np.zeros((len(ids), grid[0] * grid[1]), bool)
    rows = np.arange(len(ids)).repeat(valid.reshape(len(ids), -1).sum(1))
    cells[rows, ids[valid]] = True
    return cells.reshape(-1, *grid)


def rows(golden):
    """Rows of `ijepa_mask_stats`."""
    sample, sizes = sampler(golden.config)
    views = draw(sample, 1, golden.config["n_single"])
    out = exact_laws(golden, sizes) + single(golden, views)
    for batch, count in golden.config["n_batches"].items():
        count = min(count, max(BATCHES, IMAGES // int(batch)))
        out += batches(golden, f"b{batch}", draw(sample, int(batch), count))
    return [*out, context_block(golden, sizes["context"])]


def context_block(golden, sizes):
    """Row of the context block's (h, w) before the targets are taken out of it.

    The sampler keeps it to itself, so the law that it draws from is drawn from.
    """
    keys = jax.random.split(jax.random.key(0), golden.config["n_single"])
    drawn = jax.jit(jax.vmap(sizes.draw))(keys)
    name = "hist_context_block_hw"
    ours = laws.joint(golden.arrays[name].shape, *map(np.asarray, drawn))
    return laws.histogram_row(golden, name, ours, golden.config["n_single"])


def exact_laws(golden, sizes):
    """Rows of the laws of (h, w)."""
    names = {"target": "law_target_hw", "context": "law_context_block_hw"}
    values = {}
    for ours, name in names.items():
        law = np.zeros(golden.arrays[name].shape)
        lengths = np.diff(sizes[ours].edges, prepend=0.0)
        np.add.at(law, tuple(sizes[ours].sizes.T), lengths)
        values[name] = law
    return ledger.compare(golden, values, ledger.TENSOR)


def single(golden, views):
    """Rows of images one by one, where nothing is trimmed."""
    c, theirs = golden.config, golden.arrays
    grid, count = tuple(c["grid"]), c["n_single"]
    target, valid = views["target"][:, 0], views["target_valid"][:, 0]
    top, left, height, width = blocks(target, grid[1])
    hw = laws.joint(theirs["hist_target_hw"].shape, height[:, 0], width[:, 0])
    size = np.bincount(
        height[:, 0] * width[:, 0], minlength=len(theirs["hist_target_size"])
    )
    once = {  # one size an image, counted for each of its targets
        "hist_target_hw": hw,
        "hist_target_h": hw.sum(1),
        "hist_target_w": hw.sum(0),
        "hist_target_size": size,
    }
    covered = occupancy(target, valid, grid)
    context = occupancy(
        views["context"][:, 0, 0], views["context_valid"][:, 0, 0], grid
    )
    covers = {"hist_context_single": context, "hist_target_union": covered}
    return [
        *(laws.histogram_row(golden, n, x, count) for n, x in once.items()),
        *(
            laws.histogram_row(golden, n, sizes_of(x, theirs[n]), count)
            for n, x in covers.items()
        ),
        laws.conditional_row(
            golden,
            "hist_top_given_h",
            laws.joint(theirs["hist_top_given_h"].shape, height, top),
        ),
        laws.conditional_row(
            golden,
            "hist_left_given_w",
            laws.joint(theirs["hist_left_given_w"].shape, width, left),
        ),
        drawn_row(golden, hw / count, count),
        occupancy_row(golden, "occupancy_context", context[:, None], count),
        occupancy_row(golden, "occupancy_target", targets(target, valid, grid), count),
    ]


def drawn_row(golden, shares, count):
    """Row of the shares of (h, w) against their exact law."""
    law = golden.arrays["law_target_hw"]
    # One draw more than expected is no surprise, however rare.
    deviation = np.sqrt(law * (1 - law) / count) + (law > 0) / count
    name, largest = "law_target_hw, drawn", laws.OF_EXACT_LAW
    return laws.probability_row(golden, name, shares, law, deviation, largest)


def sizes_of(cells, theirs):
    """Counts of the sizes of maps `[images rows columns]`, as long as `theirs`."""
    return np.bincount(cells.sum((1, 2)), minlength=len(theirs))


def targets(target, valid, grid):
    """Cells of every target by itself: `[images T rows columns]`."""
    flat = occupancy(
        target.reshape(-1, target.shape[-1]), valid.reshape(-1, valid.shape[-1]), grid
    )
    return flat.reshape(*target.shape[:2], *grid)


def occupancy_row(golden, name, cells, count):
    """Row of a map of probabilities; `cells [images or batches, n, rows, columns]`.

    The standard error comes from our own spread between the independent draws. For what
    is rare, which we may not have seen, it is that of the probability of both together
    and of draws as alike within as any cell's are.
    """
    means, theirs = cells.mean(1), golden.arrays[name]
    ours, spread = means.mean(0), means.var(0)
    both = (len(means) * ours + count * theirs) / (len(means) + count)
    common = len(means) * ours * (1 - ours) > COMMON
    alike = (spread[common] / (ours * (1 - ours))[common]).max(
        initial=1 / cells.shape[1]
    )
    variance = np.maximum(spread, alike * both * (1 - both))
    variance *= 1 / len(means) + 1 / count
    return laws.probability_row(golden, name, means.mean(0), theirs, np.sqrt(variance))


def batches(golden, name, views):
    """Rows of whole batches, trimmed to their smallest context."""
    grid = tuple(golden.config["grid"])
    valid = views["context_valid"][:, :, 0]  # [batches B K]
    lengths = valid.sum(-1)
    if np.any(lengths != lengths[:, :1]):
        raise ValueError("contexts of a batch differ in length")
    flat = valid.reshape(-1, valid.shape[-1])
    ids = views["context"][:, :, 0].reshape(flat.shape)
    cells = occupancy(ids, flat, grid).reshape(*valid.shape[:2], *grid)
    bins = len(golden.arrays[f"hist_context_{name}"])
    count = golden.config["n_batches"][name[1:]]
    target = views["target_valid"][:, 0, 0].sum(-1)
    return [
        laws.histogram_row(
            golden,
            f"hist_context_{name}",
            np.bincount(lengths[:, 0], minlength=bins),
            count,
        ),
        laws.histogram_row(
            golden, f"hist_target_{name}", np.bincount(target, minlength=bins), count
        ),
        occupancy_row(golden, f"occupancy_context_{name}", cells, count),
    ]
