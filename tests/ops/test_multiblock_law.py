"""The law of I-JEPA's masks: against draws of the published sampler, and uniformity."""

import functools
import pathlib

import jax
import numpy as np
import pytest
import scipy.stats

from vit_ssl_jax.ops import masks, multiblock

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "ijepa_mask_stats.npz"
GRID = (14, 14)
SINGLE = 10_000


@pytest.fixture(scope="module")
def published():
    """Histograms of the published sampler at 224/16."""
    return dict(np.load(GOLDEN))


def draw(compat, batch, count):
    """`count` batches of the published numbers, on the host: `[count batch ...]`."""
    sample = functools.partial(
        multiblock.multiblock,
        grid=GRID,
        context=masks.block_sizes(GRID, (0.85, 1.0), (1.0, 1.0)),
        target=masks.block_sizes(GRID, (0.15, 0.2), (0.75, 1.5)),
        num_contexts=1,
        num_targets=4,
        min_keep=10,
        max_context=0,
        official=compat == "official",
        trim_batch=batch,
    )
    one = functools.partial(sample, batch=batch)
    keys = jax.random.split(jax.random.key(batch), count)
    chunk = max(1, 200 // batch)
    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=chunk))
    return jax.tree.map(np.asarray, run(keys))


@pytest.fixture(scope="module")
def official():
    """Single images: nothing is trimmed."""
    return draw("official", 1, SINGLE)


@pytest.fixture(scope="module")
def default():
    """Single images, placed uniformly."""
    return draw("none", 1, SINGLE)


def blocks(views):
    """Top, left, height and width of the targets: each `[images 4]`."""
    ids = views["target"][:, 0]
    top, left = np.divmod(ids[..., 0], GRID[1])
    bottom, right = np.divmod(ids[..., -1], GRID[1])  # padding repeats the last token
    return top, left, bottom - top + 1, right - left + 1


def occupancy(ids, valid, grid=GRID):
    """Cells of every image: `[images ... n] -> [images rows columns]` bool."""
    cells = np.zeros((len(ids), grid[0] * grid[1]), bool)
    rows = np.arange(len(ids)).repeat(valid.reshape(len(ids), -1).sum(1))
    cells[rows, ids[valid]] = True
    return cells.reshape(-1, *grid)


def distance(p, q):
    """Total variation of two histograms."""
    return 0.5 * np.abs(p / p.sum() - q / q.sum()).sum()


def assert_same_law(ours, theirs):
    """Total variation below its 99.9 % quantile if both came from the pooled law."""
    ours, theirs = np.ravel(ours), np.ravel(theirs)
    assert ours.shape == theirs.shape
    pool = (ours + theirs) / (ours + theirs).sum()
    rng = np.random.default_rng(0)
    pairs = [rng.multinomial(int(x.sum()), pool, 2000) for x in (ours, theirs)]
    limit = np.quantile([distance(p, q) for p, q in zip(*pairs)], 0.999)
    assert distance(ours, theirs) <= limit


def test_the_distance_can_tell_laws_apart(published):
    law = published["hist_context_single"]
    with pytest.raises(AssertionError):
        assert_same_law(np.roll(law, 1), law)


def test_context_size(official, published):
    ours = np.bincount(official["context_valid"].sum((1, 2, 3)), minlength=197)
    assert_same_law(ours, published["hist_context_single"])
    assert not official["overlap"].any()


def test_target_sizes(official, published):
    _, _, height, width = blocks(official)
    assert np.all(height == height[:, :1]) and np.all(width == width[:, :1])
    joint = np.zeros((15, 15), int)
    np.add.at(joint, (height[:, 0], width[:, 0]), 1)
    theirs = published["hist_target_hw"] // 4  # one size an image, counted four times
    assert_same_law(joint, theirs)
    assert_same_law(joint.sum(1), published["hist_target_h"] // 4)
    assert_same_law(joint.sum(0), published["hist_target_w"] // 4)


@pytest.mark.parametrize("name, start", [("top_given_h", 0), ("left_given_w", 1)])
def test_target_positions(official, published, name, start):
    place, length = blocks(official)[start], blocks(official)[start + 2]
    theirs = published[f"hist_{name}"]
    assert np.array_equal(np.unique(length), np.flatnonzero(theirs.sum(1)))
    for n in np.unique(length):
        ours = np.bincount(place[length == n], minlength=14)
        assert_same_law(ours, theirs[n])


def test_union_of_targets(official, published):
    cells = occupancy(official["target"][:, 0], official["target_valid"][:, 0])
    ours = np.bincount(cells.sum((1, 2)), minlength=197)
    assert_same_law(ours, published["hist_target_union"])


def test_context_occupancy(official, published):
    ours = occupancy(official["context"][:, 0], official["context_valid"][:, 0]).mean(0)
    theirs = published["occupancy_context"]
    deviation = np.sqrt(2 * theirs * (1 - theirs) / SINGLE)
    assert np.all(np.abs(ours - theirs) <= 5 * deviation + 1e-6)


@pytest.mark.parametrize("batch, count", [(64, 300), (128, 150), (256, 80)])
def test_context_length_after_trimming(published, batch, count):
    lengths = draw("official", batch, count)["context_valid"].sum(-1)[:, :, 0]
    assert np.all(lengths == lengths[:, :1])  # one length a batch
    ours = np.bincount(lengths[:, 0], minlength=197)
    assert_same_law(ours, published[f"hist_context_b{batch}"])


def test_default_mode_places_targets_uniformly(default):
    top, left, height, width = blocks(default)
    tested = 0
    for h, w in set(zip(height[:, 0].tolist(), width[:, 0].tolist())):
        here = (height[:, 0] == h) & (width[:, 0] == w)
        counts = np.zeros((14 - h + 1, 14 - w + 1))
        np.add.at(counts, (top[here], left[here]), 1)
        assert scipy.stats.chisquare(counts.ravel()).pvalue > 1e-3
        tested += 1
    assert tested == 5


@pytest.mark.parametrize("name", ["context", "target"])
def test_default_mode_is_mirror_symmetric(default, name):
    cells = occupancy(default[name][:, 0], default[f"{name}_valid"][:, 0])
    for flip in (cells[:, ::-1], cells[:, :, ::-1]):
        difference = cells.astype(float) - flip
        deviation = difference.std(0) / np.sqrt(SINGLE)
        assert np.all(np.abs(difference.mean(0)) <= 5 * deviation)


def test_official_mode_is_not_symmetric(official):
    cells = occupancy(official["context"][:, 0], official["context_valid"][:, 0])
    assert cells[:, 0].any() and not cells[:, -1].any()


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
