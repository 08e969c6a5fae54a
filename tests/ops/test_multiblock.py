"""I-JEPA's sampler: what every draw must satisfy, on any grid."""

import functools

import jax
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import ijepa
from vit_ssl_jax.ops import masks

BATCH = 16
PUBLISHED = ijepa.Config(
    predictor_width=4,
    predictor_depth=1,
    predictor_heads=1,
    num_contexts=1,
    num_targets=4,
    context_scale=(0.85, 1.0),
    context_aspect=(1.0, 1.0),
    target_scale=(0.15, 0.2),
    target_aspect=(0.75, 1.5),
    min_keep=10,
    max_context=0,
    compat="none",
    trim_batch=BATCH,
    ema_start=0.996,
    ema_end=1.0,
    ipe_scale=1.0,
)


def config(**changes):
    """The published numbers with changes."""
    return ijepa.Config(**(vars(PUBLISHED) | changes))


@functools.cache
def sampler(grid, **changes):
    """A jitted sampler `(key) -> numpy views` of `BATCH` images."""
    sample = ijepa.make_sampler(config(**changes), grid)
    jitted = jax.jit(functools.partial(sample, batch=BATCH))
    return lambda key: jax.tree.map(np.asarray, jitted(key))


ALL_GRIDS = [(rows, cols) for rows in range(2, 33) for cols in range(2, 33)]


@pytest.mark.parametrize("compat", ["none", "official"])
def test_every_grid_is_refused_or_can_hold_its_blocks(compat):
    refused = []
    for grid in ALL_GRIDS:
        # The sizes at a dense u, by the rule itself.
        u = np.linspace(0, 1, 23, endpoint=False)
        c = config(compat=compat)
        context, target = (
            np.array([masks.block_size(x, grid, *rule) for x in u]).prod(1)
            for rule in (
                (c.context_scale, c.context_aspect),
                (c.target_scale, c.target_aspect),
            )
        )
        hopeless = target.min() < 1 or context.min() <= c.min_keep
        hopeless |= compat == "official" and target.min() <= c.min_keep
        try:
            bound = ijepa.make_sampler(c, grid).keywords
        except UserError as error:
            assert f"{grid[0]}x{grid[1]}" in str(error)
            refused.append(grid)
            continue
        assert not hopeless, f"{grid} accepted, but {context=} {target=}"
        for name in ("context", "target"):
            sizes = bound[name].sizes
            assert np.all(sizes >= 1) and np.all(sizes < grid), (name, grid)
        assert bound["context"].smallest > c.min_keep
    accepted = set(ALL_GRIDS) - set(refused)
    assert {(7, 7), (8, 8), (14, 14), (16, 16), (28, 28), (32, 32)} - accepted == (
        {(7, 7), (8, 8)} if compat == "official" else set()
    )
    assert {(2, 2), (2, 3), (3, 3)} <= set(refused)


SPREAD = [
    ((2, 2), dict(min_keep=0, target_scale=(0.3, 0.5))),
    ((3, 5), dict(min_keep=2, num_contexts=2)),
    ((4, 4), dict(min_keep=5, target_scale=(0.4, 0.6))),  # contexts must overlap
    ((8, 8), dict(max_context=20)),
    ((9, 31), dict(num_targets=2)),
    ((12, 6), dict(num_contexts=2, max_context=15)),
    ((14, 14), dict()),
    ((14, 14), dict(compat="official")),
    ((16, 16), dict(compat="official", trim_batch=5)),
    ((24, 10), dict(compat="official", num_contexts=2)),
    ((28, 28), dict(num_targets=6)),
]


@pytest.mark.parametrize("grid, changes", SPREAD, ids=str)
def test_views_are_sound(grid, changes):
    c = config(**changes)
    keywords = ijepa.make_sampler(c, grid).keywords
    bound = c.max_context or keywords["context"].largest
    for seed in range(4):
        views = sampler(grid, **changes)(jax.random.key(seed))
        check_shapes(views, c, bound, keywords["target"].largest)
        check_targets(views, grid, {tuple(s) for s in keywords["target"].sizes})
        check_contexts(views, grid, c, bound)


def check_shapes(views, c, k, m):
    """Static shapes and dtypes."""
    shapes = dict(context=(BATCH, c.num_contexts, k), target=(BATCH, c.num_targets, m))
    for name, shape in shapes.items():
        assert views[name].shape == views[f"{name}_valid"].shape == shape
        assert views[name].dtype == np.int32
        assert views[f"{name}_valid"].dtype == bool
    for name in ("dropped", "overlap"):
        assert views[name].shape == shapes["context"][:2]


def check_targets(views, grid, sizes):
    """Full blocks inside the grid, of one size for all images."""
    ids, valid = views["target"], views["target_valid"]
    assert ids.min() >= 0 and ids.max() < grid[0] * grid[1]
    seen = set()
    for some, real in zip(
        ids.reshape(-1, ids.shape[-1]), valid.reshape(-1, ids.shape[-1])
    ):
        rows, cols = (np.unique(x) for x in np.divmod(some[real], grid[1]))
        seen.add((len(rows), len(cols)))
        block = rows[:, None] * grid[1] + cols
        np.testing.assert_array_equal(some[real], block.ravel())
        assert np.all(np.diff(rows) == 1) and np.all(np.diff(cols) == 1)
    assert len(seen) == 1 and seen <= sizes


def check_contexts(views, grid, c, bound):
    """Raster order, free of targets unless flagged, large enough."""
    for image in range(BATCH):
        targets = views["target"][image][views["target_valid"][image]]
        for e in range(c.num_contexts):
            valid = views["context_valid"][image, e]
            kept = views["context"][image, e][valid]
            assert np.all(np.diff(kept) > 0) and kept.min() >= 0
            assert kept.max() < grid[0] * grid[1]
            if not views["overlap"][image, e]:
                assert not np.isin(kept, targets).any()
            dropped = views["dropped"][image, e]
            assert len(kept) + dropped > c.min_keep
            if c.compat == "none":
                assert (dropped == 0) or len(kept) == bound


def test_overlap_is_the_last_resort():
    hard = sampler((4, 4), min_keep=5, target_scale=(0.4, 0.6))(jax.random.key(0))
    assert hard["overlap"].any()
    easy = sampler((14, 14))(jax.random.key(0))
    assert not easy["overlap"].any()


def test_official_mode_never_reaches_the_last_row_and_column():
    for seed in range(4):
        views = sampler((14, 14), compat="official")(jax.random.key(seed))
        for name in ("context", "target"):
            ids = views[name][views[f"{name}_valid"]]
            assert np.all(ids // 14 < 13) and np.all(ids % 14 < 13)


def test_default_mode_reaches_every_row_and_column():
    views = sampler((14, 14))(jax.random.key(0))
    for name in ("context", "target"):
        ids = views[name][views[f"{name}_valid"]]
        assert set(ids // 14) == set(ids % 14) == set(range(14))


@pytest.mark.parametrize("group", [BATCH, 5])
def test_official_trim_is_the_published_one(group):
    key = jax.random.key(3)
    whole = sampler((16, 16), compat="official", trim_batch=1)(key)
    trimmed = sampler((16, 16), compat="official", trim_batch=group)(key)
    lists = [ids[v] for ids, v in zip(whole["context"], whole["context_valid"])]
    for start in range(0, BATCH, group):
        part = lists[start : start + group]
        least = min(map(len, part))
        for i, ids in enumerate(part, start):
            ours = trimmed["context"][i][trimmed["context_valid"][i]]
            np.testing.assert_array_equal(ours, ids[:least])
            assert trimmed["dropped"][i] == len(ids) - least


def test_sizes_are_drawn_once_a_step_and_positions_per_image():
    sizes = set()
    for seed in range(8):
        views = sampler((14, 14))(jax.random.key(seed))
        counts = set(views["target_valid"].sum(-1).ravel().tolist())
        assert len(counts) == 1  # so micro-batches of a step share it
        sizes |= counts
        assert len(np.unique(views["target"][:, 0, 0])) > 1
    assert len(sizes) > 1


@pytest.mark.parametrize("bound", [10, 170])
def test_a_bound_that_no_context_can_meet_is_refused(bound):
    with pytest.raises(UserError, match="max_context"):
        ijepa.make_sampler(config(max_context=bound), (14, 14))
