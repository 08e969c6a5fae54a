"""The law of I-JEPA's masks: uniformity by default, the published fallback.

That `compat="official"` follows the published sampler's statistics is the ledger's
business (tests/parity/multiblock.py, run by tests/test_goldens.py).
"""

import functools
import pathlib

import jax
import numpy as np
import pytest
import scipy.stats

from tests.parity import laws, ledger
from tests.parity import multiblock as statistics
from tests.parity.multiblock import blocks, occupancy
from vit_ssl_jax.ops import masks, multiblock

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
GRID = (14, 14)
SINGLE = 10_000


@pytest.fixture(scope="module")
def published():
    """The case of the published sampler at 224/16."""
    return ledger.load(GOLDEN, "ijepa_mask_stats")


@pytest.fixture(scope="module")
def default(published):
    """Single images, placed uniformly."""
    sample, _ = statistics.sampler(published.config)
    return statistics.draw(functools.partial(sample, official=False), 1, SINGLE)


def assert_same_law(ours, theirs):
    """Total variation below its 99.9 % quantile if both came from the pooled law."""
    far = laws.limit(ours + theirs, ours.sum(), theirs.sum())
    assert laws.distance(ours, theirs) <= far


def test_the_ledger_can_tell_laws_apart(published):
    name = "hist_context_single"
    shifted = np.roll(published.arrays[name], 1)
    assert laws.histogram_row(published, name, shifted).verdict == ledger.FAIL


def test_uniform_placement_fails_the_published_statistics(published, default):
    rows = {row.quantity: row.verdict for row in statistics.single(published, default)}
    assert rows["hist_target_hw"] == ledger.OK  # sizes follow the same law
    assert rows["hist_top_given_h"] == ledger.FAIL
    assert rows["occupancy_context"] == ledger.FAIL


def test_default_mode_places_targets_uniformly(default):
    top, left, height, width = blocks(default["target"][:, 0], GRID[1])
    tested = 0
    for h, w in set(zip(height[:, 0].tolist(), width[:, 0].tolist())):
        here = (height[:, 0] == h) & (width[:, 0] == w)
        counts = np.zeros((14 - h + 1, 14 - w + 1))
        np.add.at(counts, (top[here], left[here]), 1)
        assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3
        tested += 1
    assert tested == 5


def test_default_occupancy_is_that_of_uniform_placement(published, default):
    """A cell lies in a block of (h, w) for as many places as hold it, all alike."""
    _, sizes = statistics.sampler(published.config)
    lengths = np.diff(sizes["target"].edges, prepend=0.0)
    expected = np.zeros(GRID)
    for share, (h, w) in zip(lengths, sizes["target"].sizes):
        for top in range(GRID[0] - h + 1):
            for left in range(GRID[1] - w + 1):
                places = (GRID[0] - h + 1) * (GRID[1] - w + 1)
                expected[top : top + h, left : left + w] += share / places
    first, valid = (default[n][:, 0, :1] for n in ("target", "target_valid"))
    ours = occupancy(first[:, 0], valid[:, 0], GRID).mean(0)
    deviation = np.sqrt(expected * (1 - expected) / SINGLE)
    assert np.all(np.abs(ours - expected) <= 5 * deviation)
    assert expected.max() > 10 * expected.min()  # corners are rare


@pytest.mark.parametrize("name", ["context", "target"])
def test_default_mode_is_mirror_symmetric(default, name):
    cells = occupancy(default[name][:, 0], default[f"{name}_valid"][:, 0], GRID)
    for flip in (cells[:, ::-1], cells[:, :, ::-1]):
        difference = cells.astype(float) - flip
        deviation = difference.std(0) / np.sqrt(SINGLE)
        assert np.all(np.abs(difference.mean(0)) <= 5 * deviation)


def plain_contexts(rng, count, grid, sizes, num_targets, min_keep):
    """Per image the context's size, overlap, and targets met, by the published loop."""
    out = []
    (th, tw), (ch, cw) = sizes
    for _ in range(count):
        free = []
        for _ in range(num_targets):
            top, left = rng.integers(grid[0] - th), rng.integers(grid[1] - tw)
            cells = np.ones(grid, bool)
            cells[top : top + th, left : left + tw] = False
            free.append(cells)
        tries = 0
        while True:
            top, left = rng.integers(grid[0] - ch), rng.integers(grid[1] - cw)
            cells = np.zeros(grid, bool)
            cells[top : top + ch, left : left + cw] = True
            avoided = num_targets - tries // 20
            for other in free[:avoided]:
                cells &= other
            if cells.sum() > min_keep:
                break
            tries += 1
        met = [(cells & ~other).any() for other in free]
        out.append((cells.sum(), avoided < num_targets, *met))
    return np.array(out)


def test_fallback_is_the_published_one():
    """A grid so tight that most images run out of tries."""
    grid, sizes = (6, 6), ((4, 3), (5, 4))
    numbers = dict(num_targets=3, min_keep=6)
    one = [masks.BlockSizes(np.ones(1), np.array([size])) for size in sizes]
    sample = functools.partial(
        multiblock.multiblock,
        grid=grid,
        target=one[0],
        context=one[1],
        num_contexts=1,
        max_context=0,
        official=True,
        trim_batch=1,
        **numbers,
    )
    views = jax.jit(functools.partial(sample, batch=3000))(jax.random.key(0))
    theirs = plain_contexts(np.random.default_rng(0), 3000, grid, sizes, **numbers)
    share = theirs[:, 1].mean()
    assert 0.1 < share < 0.9
    valid = np.asarray(views["context_valid"])
    cells = occupancy(np.asarray(views["context"]), valid, grid)
    columns = [valid.sum((1, 2)), np.asarray(views["overlap"])[:, 0]]
    for i in range(numbers["num_targets"]):  # the last may be met first
        target = np.asarray(views["target"])[:, i]
        other = occupancy(target, np.ones_like(target, bool), grid)
        columns.append((cells & other).any((1, 2)))
    for ours, other in zip(columns, theirs.T, strict=True):
        assert_same_law(*(np.bincount(x, minlength=37) for x in (ours, other)))


def test_sizes_of_context_and_target_are_independent():
    halves = np.array([0.5, 1.0])
    sample = functools.partial(
        multiblock.multiblock,
        batch=1,
        grid=(9, 9),
        target=masks.BlockSizes(halves, np.array([[1, 1], [2, 2]])),
        context=masks.BlockSizes(halves, np.array([[3, 3], [4, 4]])),
        num_contexts=1,
        num_targets=1,
        min_keep=0,
        max_context=0,
        official=False,
        trim_batch=1,
    )
    views = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), 4000))
    large = (views[f"{n}_valid"].sum((1, 2, 3)) for n in ("context", "target"))
    context, target = (np.asarray(x) > limit for x, limit in zip(large, (9, 1)))
    joint = np.histogram2d(context, target, bins=2)[0]
    assert np.abs(joint / 4000 - 0.25).max() < 5 * np.sqrt(3 / 16 / 4000)
