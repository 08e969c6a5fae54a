"""Block-wise masks: counts, ends, blocks, and when a grid can't have them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import blockwise

COMPAT = ("none", "slowfast", "mmpretrain")


@functools.partial(jax.jit, static_argnames=("batch", "law", "record"))
def draw(key, batch, law, record=0):
    return blockwise.blockwise(key, batch, law=law, record=record)


def sample(law, batch=64, record=0, seed=0):
    """Masks `[B H W]` and their blocks, on the host."""
    hide, blocks = draw(jax.random.key(seed), batch, law, record)
    return np.asarray(hide).reshape(batch, *law.grid), np.asarray(blocks)


@pytest.mark.parametrize(
    ("side", "count", "minimum"),
    [(7, 20, 4), (8, 26, 5), (14, 78, 15), (16, 102, 20), (28, 314, 62)],
)
@pytest.mark.parametrize("compat", COMPAT)
def test_published_numbers(side, count, minimum, compat):
    law = blockwise.make_law((side, side), 0.4, compat)
    assert (law.count, law.minimum, law.aspect) == (count, minimum, 0.3)


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 32), st.integers(2, 32), st.sampled_from([0.1, 0.4, 0.75]))
@example(2, 2, 0.4)
@example(2, 32, 0.4)
@example(32, 2, 0.4)
@example(32, 32, 0.4)
def test_every_grid_ends_with_the_exact_count(rows, cols, ratio):
    law = blockwise.make_law((rows, cols), ratio, "none")
    hide, _ = sample(law, 16)
    assert np.all(hide.sum((1, 2)) == round(rows * cols * ratio))


@pytest.mark.parametrize("grid", [(3, 3), (2, 24), (9, 5), (14, 14)])
def test_mmpretrain_is_exact_without_the_last_row_and_column(grid):
    law = blockwise.make_law(grid, 0.4, "mmpretrain")
    assert blockwise.can_fill(law)
    hide, _ = sample(law)
    assert np.all(hide.sum((1, 2)) == law.count)
    assert not hide[:, -1].any() and not hide[:, :, -1].any()
    assert hide.any(0)[:-1, :-1].all()


@pytest.mark.parametrize("grid", [(7, 7), (5, 9), (14, 14)])
def test_slowfast_may_end_below(grid):
    law = blockwise.make_law(grid, 0.4, "slowfast")
    counts = sample(law, 512)[0].sum((1, 2))
    assert counts.max() == law.count and counts.min() > 0.5 * law.count
    assert counts.min() < law.count


@pytest.mark.parametrize("compat", COMPAT)
def test_masks_are_their_blocks(compat):
    """Replayed: each block lies inside, adds something, and never too much."""
    law = blockwise.make_law((9, 13), 0.4, compat)
    law = dataclasses.replace(law, fill=False)
    hide, blocks = sample(law, record=24)
    for mask, rows in zip(hide, blocks):
        replayed = np.zeros(law.grid, bool)
        used = rows[rows[:, 0] > 0]
        assert 0 < len(used) < 24 and np.all(rows[len(used) :] == 0)
        for height, width, top, left in used:
            assert height < 9 and width < 13 and min(top, left) >= 0
            assert top + height <= 9 - (compat == "mmpretrain")
            assert left + width <= 13 - (compat == "mmpretrain")
            before = replayed.sum()
            replayed[top : top + height, left : left + width] = True
            assert before < replayed.sum() <= law.count
        np.testing.assert_array_equal(replayed, mask)


@pytest.mark.parametrize("compat", COMPAT)
def test_masks_follow_the_key(compat):
    law = blockwise.make_law((8, 8), 0.4, compat)
    one, again, other = (sample(law, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert len(np.unique(one.reshape(64, -1), axis=0)) > 32  # images differ, too


@pytest.mark.parametrize("inclusive", [True, False])
def test_blocks_are_aimed_at_as_published(inclusive):
    """Sizes by the rule, also where less is missing than the smallest area."""
    law = blockwise.make_law((14, 14), 0.4, "none" if inclusive else "mmpretrain")
    for missing in (78, 3):
        low, high = sorted((law.minimum, missing))
        lack = jnp.full(20_000, missing)
        height, width, top, left = map(
            np.asarray, blockwise.propose(jax.random.key(0), lack, law)
        )
        # Half a patch of rounding at each side.
        assert np.all((height + 0.5) * (width + 0.5) >= low)
        assert np.all((height - 0.5) * (width - 0.5) <= high)
        assert np.all((height - 0.5) / (width + 0.5) <= 1 / 0.3)
        assert np.all((width - 0.5) / (height + 0.5) <= 1 / 0.3)
        fits = (height < 14) & (width < 14)
        for start, length in ((top, height), (left, width)):
            last = 14 - length[fits] - (not inclusive)
            assert np.all((start[fits] >= 0) & (start[fits] <= last))
        n = 3  # all places of one size, equally often
        counts = np.bincount(top[fits & (height == n)])
        assert len(counts) == 14 - n + inclusive
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_what_is_missing_is_filled_at_random():
    law = blockwise.make_law((4, 5), 0.4, "mmpretrain")  # 8 of 20, 12 in reach
    hide = np.zeros((6000, 4, 5), bool)
    hide[:, 1, 1:3] = True
    filled = blockwise.fill_up(jax.random.key(0), hide.reshape(-1, 20), law)
    filled = np.asarray(filled).reshape(hide.shape)
    assert np.all(filled.sum((1, 2)) == 8) and np.all(filled[hide])
    assert not filled[:, -1].any() and not filled[:, :, -1].any()
    share = filled.mean(0)[:-1, :-1][~hide[0, :-1, :-1]]
    assert np.abs(share - 6 / 10).max() < 5 * np.sqrt(0.24 / 6000)


def plain_sizes(law, missing, count, rng):
    """Sizes (height, width) that the published rule aims at."""
    area = rng.uniform(*sorted((law.minimum, missing)), count)
    ratio = np.exp(rng.uniform(np.log(law.aspect), -np.log(law.aspect), count))
    return np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))


@pytest.mark.parametrize(
    "grid", [(2, 2), (2, 3), (2, 24), (2, 40), (2, 64), (3, 60), (3, 90), (14, 14)]
)
def test_whether_a_block_can_be_placed(grid):
    """Against many draws of the rule: what was seen is possible, the rest very rare."""
    law, rng = blockwise.make_law(grid, 0.4, "none"), np.random.default_rng(0)
    for missing in {1, 2, 3, law.minimum, law.count // 2, law.count} - {0}:
        height, width = plain_sizes(law, missing, 200_000, rng)
        fits = (height < grid[0]) & (width < grid[1]) & (height * width > 0)
        seen = bool(np.any(fits & (height * width <= missing)))
        assert blockwise.can_place(law, missing) == seen, missing


@pytest.mark.parametrize(
    ("grid", "ratio", "expected"),
    [((14, 14), 0.4, True), ((14, 14), 0.9, False), ((2, 64), 0.4, False)]
    + [((14, 14), 169 / 196, True), ((14, 14), 170 / 196, False)]
    + [((1, 20), 0.4, False)],
)
def test_whether_the_published_loop_ends(grid, ratio, expected):
    law = blockwise.make_law(grid, ratio, "mmpretrain")
    assert blockwise.can_fill(law) == expected
