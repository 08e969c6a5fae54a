"""The law of block-wise masks: uniform placement, symmetry. The published laws are in
the ledger (tests/parity/blockmasks.py); here is that it can tell them apart."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from tests.parity import blockmasks, laws, ledger
from vit_ssl_jax.ops import blockwise

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
GRID, COUNT = (14, 14), 10_000
FINE = 2000  # steps of the integration, each way


def sample(compat, record=1):
    """Masks `[COUNT H W]` and their first blocks `[COUNT record 4]`."""
    law = blockwise.make_law(GRID, 0.4, compat)
    run = functools.partial(blockwise.blockwise, batch=COUNT, law=law, record=record)
    hide, blocks = jax.jit(run)(jax.random.key(0))
    return np.asarray(hide).reshape(COUNT, *GRID), np.asarray(blocks)


@pytest.fixture(scope="module")
def default():
    return sample("none")


def first_sizes(law):
    """P(height, width) of a first block, by integration over area and aspect."""
    u = (np.arange(FINE) + 0.5) / FINE
    area = law.minimum + u[:, None] * (law.count - law.minimum)
    ratio = np.exp(np.log(law.aspect) * (1 - 2 * u[None]))
    height, width = (np.round(np.sqrt(x)) for x in (area * ratio, area / ratio))
    rows, cols = law.grid
    fits = (height < rows) & (width < cols) & (height * width <= law.count)
    out = np.zeros((rows + 1, cols + 1))
    np.add.at(out, (height[fits].astype(int), width[fits].astype(int)), 1.0)
    return out / out.sum()


def covered(length, side):
    """P(cell i lies in a block of `length`) where all side - length + 1 places are
    equally likely."""
    i = np.arange(side)
    places = np.minimum(i, side - length) - np.maximum(i - length + 1, 0) + 1
    return places / (side - length + 1)


def test_first_block_has_the_exact_law(default):
    law = blockwise.make_law(GRID, 0.4, "none")
    exact = first_sizes(law)
    height, width, top, left = default[1][:, 0].T
    assert height.min() > 0  # nobody ran out of tries
    counts = np.zeros(exact.shape)
    np.add.at(counts, (height, width), 1)
    far = laws.limit(exact, COUNT, 10**9)
    assert laws.distance(counts.ravel(), exact.ravel()) <= far

    i = np.arange(14)
    rows = (i >= top[:, None]) & (i < (top + height)[:, None])
    cols = (i >= left[:, None]) & (i < (left + width)[:, None])
    ours = np.einsum("nr,nc->rc", rows * 1.0, cols * 1.0) / COUNT
    theirs = sum(
        p * np.outer(covered(h, 14), covered(w, 14))
        for (h, w), p in np.ndenumerate(exact)
        if p
    )
    assert theirs.sum() == pytest.approx((exact * np.outer(*2 * [np.r_[:15]])).sum())
    deviation = np.sqrt(theirs * (1 - theirs) / COUNT)
    assert np.all(np.abs(ours - theirs) <= 5 * deviation)
    exclusive = np.pad(ours[:-1, :-1], ((0, 1), (0, 1)))  # would be noticed
    assert np.any(np.abs(exclusive - theirs) > 5 * deviation)


def asymmetry(hide, flip):
    """Largest difference from the mirror image, in standard errors."""
    difference = hide.astype(float) - flip(hide)
    deviation = difference.std(0) / np.sqrt(len(hide))
    return np.max(np.abs(difference.mean(0)) / np.maximum(deviation, 1e-6))


FLIPS = {
    "up": lambda x: x[:, ::-1],
    "sideways": lambda x: x[:, :, ::-1],
    "diagonal": lambda x: x.swapaxes(1, 2),
}


@pytest.mark.parametrize("flip", FLIPS)
def test_default_masks_are_mirror_symmetric(default, flip):
    assert np.all(default[0].sum((1, 2)) == 78)
    assert asymmetry(default[0], FLIPS[flip]) <= 5


@pytest.mark.slow
def test_mmpretrain_masks_are_not():
    hide, _ = sample("mmpretrain", 0)
    assert asymmetry(hide, FLIPS["up"]) > 20


@pytest.mark.slow
def test_the_ledger_tells_the_two_laws_apart(monkeypatch):
    swapped = {"slowfast": "mmpretrain", "mm": "slowfast"}
    monkeypatch.setattr(blockmasks, "COMPAT", swapped)
    golden = ledger.load(GOLDEN, "maskfeat_blockmask_stats")
    failed = {
        row.quantity
        for row in blockmasks.statistics(golden)
        if row.verdict == ledger.FAIL
    }
    for name in swapped:
        assert {
            f"{name}/{x}" for x in ("hist_masked", "hist_hw", "occupancy")
        } <= failed
