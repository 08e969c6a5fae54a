"""Ids and validity against plain numpy and the published sampler's tables."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import masks

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "ijepa_mask_stats.npz"
TARGET = dict(scale=(0.15, 0.2), aspect=(0.75, 1.5))
CONTEXT = dict(scale=(0.85, 1.0), aspect=(1.0, 1.0))


def test_split_takes_the_smallest_noise_in_its_order():
    # Two rows of the published test vector: frac(phi (j + 1)), frac(sqrt(2) (j + 1)).
    j = np.arange(1, 17)
    noise = np.stack([0.61803398875 * j % 1, 0.41421356237 * j % 1])
    keep, hide = masks.split_by_noise(jnp.float32(noise), 4)
    order = np.concatenate([keep, hide], axis=1)
    restore = [9, 3, 13, 7, 1, 11, 5, 15, 8, 2, 12, 6, 0, 10, 4, 14]
    assert np.argsort(order[0]).tolist() == restore
    hidden = np.ones((2, 16), int)
    np.put_along_axis(hidden, np.asarray(keep), 0, axis=1)
    assert "".join(map(str, hidden[0])) == "1011011110110111"
    assert "".join(map(str, hidden[1])) == "1101011110111101"
    assert keep.dtype == hide.dtype == jnp.int32


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 32), st.integers(2, 32), st.floats(0.05, 0.95))
def test_a_split_of_any_grid_is_a_partition(rows, cols, ratio):
    tokens = rows * cols
    kept = max(1, int(tokens * (1 - ratio)))
    parts = masks.random_split(jax.random.key(rows), 3, tokens, kept)
    assert [x.shape for x in parts] == [(3, kept), (3, tokens - kept)]
    both = np.sort(np.concatenate(parts, axis=1), axis=1)
    np.testing.assert_array_equal(both, np.tile(np.arange(tokens), (3, 1)))


def test_random_split_is_uniform():
    keep, hide = masks.random_split(jax.random.key(0), 4000, 8, 2)
    both = np.sort(np.concatenate([keep, hide], axis=1), axis=1)
    np.testing.assert_array_equal(both, np.tile(np.arange(8), (4000, 1)))
    pairs = np.bincount(np.asarray(keep[:, 0] * 8 + keep[:, 1]), minlength=64)
    pairs = pairs.reshape(8, 8)
    assert np.all(np.diag(pairs) == 0)
    expected = 4000 / 56
    others = pairs[~np.eye(8, dtype=bool)]
    assert np.abs(others - expected).max() < 5 * np.sqrt(expected)


def law_table(sizes, shape):
    """Probability of every (height, width)."""
    table = np.zeros(shape)
    share = np.diff(sizes.edges, prepend=0.0)
    np.add.at(table, tuple(sizes.sizes.T), share)
    return table


@pytest.mark.parametrize(
    "name, rule", [("law_target_hw", TARGET), ("law_context_block_hw", CONTEXT)]
)
def test_block_sizes_have_the_published_law(name, rule):
    expected = np.load(GOLDEN)[name]
    ours = law_table(masks.block_sizes((14, 14), **rule), expected.shape)
    np.testing.assert_allclose(ours, expected, atol=5e-7)


# Height and width with their probability, from the published rule.
LAWS = {
    16: {(5, 7): 0.047, (6, 7): 0.279, (6, 6): 0.016, (7, 6): 0.289}
    | {(8, 6): 0.296, (9, 6): 0.073},
    28: {(9, 12): 0.020, (10, 12): 0.166, (11, 12): 0.115, (11, 11): 0.046}
    | {(12, 11): 0.174, (13, 11): 0.167, (14, 11): 0.103, (14, 10): 0.066}
    | {(15, 10): 0.144},
}


@pytest.mark.parametrize("side", LAWS)
def test_law_of_the_other_published_grids(side):
    table = law_table(masks.block_sizes((side, side), **TARGET), (side, side))
    assert set(zip(*np.nonzero(table))) == set(LAWS[side])
    for size, share in LAWS[side].items():
        assert table[size] == pytest.approx(share, abs=6e-4)


def plain_size(u, grid, scale, aspect):
    """The published rule on an array of u."""
    tokens = np.floor(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    height, width = np.rint(np.sqrt(tokens * ratio)), np.rint(np.sqrt(tokens / ratio))
    both = np.minimum(height, grid[0] - 1), np.minimum(width, grid[1] - 1)
    return np.stack(both, axis=1)


RULES = [
    TARGET,
    CONTEXT,
    dict(scale=(0.05, 0.9), aspect=(0.3, 3.3)),
    dict(scale=(0.2, 0.2), aspect=(0.75, 1.5)),
    dict(scale=(0.2, 0.2), aspect=(1.0, 1.0)),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (7, 7), (8, 12), (37, 5), (28, 28)])
def test_law_is_exact_at_a_dense_u(grid, rule):
    sizes = masks.block_sizes(grid, **rule)
    assert np.all(np.diff(sizes.edges) > 0) and sizes.edges[-1] == 1
    u = (np.arange(50_000) + 0.5) / 50_000
    near = np.abs(sizes.edges[:, None] - u).min(0) < 1e-9  # rounding decides there
    ours = sizes.sizes[np.searchsorted(sizes.edges, u, "right")]
    expected = plain_size(u, grid, **rule)
    np.testing.assert_array_equal(ours[~near], expected[~near])
    assert sizes.largest >= expected.prod(1).max()
    assert sizes.smallest <= expected.prod(1).min()


def test_draw_follows_the_law():
    sizes = masks.block_sizes((14, 14), **TARGET)
    height, width = jax.vmap(sizes.draw)(jax.random.split(jax.random.key(0), 20_000))
    counts = np.zeros((14, 14))
    np.add.at(counts, (np.asarray(height), np.asarray(width)), 1)
    law = law_table(sizes, (14, 14))
    deviation = np.sqrt(law * (1 - law) / 20_000)
    assert np.all(np.abs(counts / 20_000 - law) <= 5 * deviation)


@pytest.mark.parametrize("inclusive", [True, False])
def test_places_are_uniform(inclusive):
    grid, size, count = (5, 7), (3, 3), 12_000
    top, left = masks.place_blocks(
        jax.random.key(1), (count,), grid, size, inclusive=inclusive
    )
    rows, cols = (3, 5) if inclusive else (2, 4)  # exclusive: the last is never drawn
    counts = np.zeros(grid)
    np.add.at(counts, (np.asarray(top), np.asarray(left)), 1)
    assert counts[:rows, :cols].sum() == count
    expected = count / (rows * cols)
    assert np.abs(counts[:rows, :cols] - expected).max() < 5 * np.sqrt(expected)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_block_ids_and_map_are_the_block_in_raster_order(data):
    grid = (data.draw(st.integers(2, 6)), data.draw(st.integers(2, 6)))
    size = [data.draw(st.integers(1, side)) for side in grid]
    top, left = (data.draw(st.integers(0, s - n)) for s, n in zip(grid, size))
    cells = np.zeros(grid, bool)
    cells[top : top + size[0], left : left + size[1]] = True
    expected = np.flatnonzero(cells)

    corner = jnp.full((1,), top), jnp.full((1,), left)
    bound = 40
    ids, valid = masks.block_ids(*corner, size, grid, bound)
    assert ids.shape == valid.shape == (1, bound)
    assert valid[0].tolist() == [i < len(expected) for i in range(bound)]
    np.testing.assert_array_equal(ids[0, : len(expected)], expected)
    assert np.all(ids[0, len(expected) :] == expected[-1])
    np.testing.assert_array_equal(masks.block_map(*corner, size, grid)[0], cells)


booleans = st.lists(st.booleans(), min_size=12, max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.lists(booleans, min_size=2, max_size=2), st.integers(1, 12))
def test_map_to_ids_lists_true_cells_in_raster_order(covered, bound):
    ids, valid = masks.map_to_ids(jnp.array(covered), bound)
    assert ids.shape == valid.shape == (2, bound) and ids.dtype == jnp.int32
    for row, (some, real) in enumerate(zip(np.asarray(ids), np.asarray(valid))):
        expected = np.flatnonzero(covered[row])[:bound]
        np.testing.assert_array_equal(some[real], expected)


@settings(max_examples=30, deadline=None)
@given(booleans, st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_keep_at_most_drops_only_down_to_the_bound(covered, bound, seed):
    covered = np.array(covered)
    kept = masks.keep_at_most(jax.random.key(seed), jnp.array(covered), bound)
    assert not np.any(np.asarray(kept) & ~covered)
    assert int(kept.sum()) == min(covered.sum(), bound)


def test_keep_at_most_drops_any_cell_alike():
    covered = np.array([1, 0, 1, 1, 1, 0, 1, 1], bool)
    many = jnp.tile(covered, (6000, 1))
    share = np.asarray(masks.keep_at_most(jax.random.key(2), many, 2)).mean(0)
    assert np.all(share[~covered] == 0)
    assert np.abs(share[covered] - 2 / 6).max() < 5 * np.sqrt(2 / 9 / 6000)


@pytest.mark.parametrize("batch, group", [(6, 3), (7, 3), (4, 4), (3, 8), (3, 1)])
def test_keep_group_minimum_trims_a_group_to_its_smallest(batch, group):
    covered = np.random.default_rng(3).random((batch, 2, 20)) < 0.6
    expected = np.zeros_like(covered)
    for start in range(0, batch, group):
        part = covered[start : start + group]
        least = part.sum(-1).min()
        for i, e in np.ndindex(part.shape[:2]):
            expected[start + i, e, np.flatnonzero(part[i, e])[:least]] = True
    kept = masks.keep_group_minimum(jnp.array(covered), group)
    np.testing.assert_array_equal(kept, expected)
