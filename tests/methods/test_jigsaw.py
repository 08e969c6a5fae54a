"""Jigsaw: what lies where in the puzzle, what can't be seen, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import jigsaw
from vit_ssl_jax.ops import permutations


def puzzle(method, batch, seed=0):
    """Views under a key."""
    return jax.jit(lambda key: method.make_views(key, batch))(jax.random.key(seed))


def cells_of(image, n):
    """Cells in raster order, by slices: `[B H W C] -> [B n*n h w C]`."""
    side = image.shape[1] // n
    corners = itertools.product(range(0, n * side, side), repeat=2)
    return np.stack([image[:, r : r + side, c : c + side] for r, c in corners], axis=1)


@pytest.mark.parametrize("compat", ["none", "official"])
def test_every_place_holds_the_tile_that_its_permutation_says(tiny, compat):
    """Cell t is a ramp along its own direction, which survives whatever is done to it."""
    size, n, p = (36, 36), 3, 50
    angle = 2 * np.pi * np.arange(9) / 9
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    rows, cols = np.mgrid[:12, :12] / 40
    cells = 0.5 + direction[:, :1, None] * rows + direction[:, 1:, None] * cols
    image = np.block([[cells[3 * r + c] for c in range(3)] for r in range(3)])
    batch = {"image": np.float32(np.tile(image[None, ..., None], (6, 1, 1, 3)))}
    method = tiny.method(
        "jigsaw", size, grid=n, tile=9, permutations=p, gray=0.0, compat=compat
    )
    views = puzzle(method, batch)
    rule = "mean" if compat == "official" else "minimum"
    table = permutations.spread_permutations(9, p, by=rule)
    shown = cells_of(np.asarray(views["image"]), n)[..., 0]
    slope = np.stack([np.diff(shown, axis=a).mean((-1, -2)) for a in (-2, -1)], axis=-1)
    found = np.argmax(slope @ direction.T, axis=-1)  # [B 9]
    np.testing.assert_array_equal(found, table[views["label"]])
    assert len(set(views["label"].tolist())) > 2


def test_tiles_are_standardised_one_by_one(tiny):
    views = puzzle(tiny.method("jigsaw"), tiny.batch(4))
    cells = cells_of(np.asarray(views["image"]), 2)
    np.testing.assert_allclose(cells.mean((2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(cells.std((2, 3, 4), ddof=1), 1, rtol=1e-4)
    assert np.abs(cells.mean((2, 3))).max() > 1e-3  # channels only together
    views = puzzle(tiny.method("jigsaw", compat="official"), tiny.batch(4))
    cells = cells_of(np.asarray(views["image"]), 2)
    np.testing.assert_allclose(cells.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(cells.std((2, 3), ddof=1), 1, rtol=1e-4)


def test_channels_are_moved_against_each_other_by_up_to_two_pixels(tiny):
    """A ramp moved by d pixels is one that is higher by d; a grey image has no colours."""
    ramp = np.broadcast_to(np.float32(np.arange(32) % 16)[None, None], (40, 32, 32))
    batch = {"image": np.repeat(ramp[..., None] / 15, 3, axis=-1)}
    cell, tile = 16, 12
    found = {}
    for compat in ("none", "official"):
        method = tiny.method("jigsaw", tile=tile, gray=0.0, compat=compat)
        views = jax.jit(
            lambda key, m=method: m.make_views(key, batch, normalize=lambda x: x)
        )(jax.random.key(0))
        cells = cells_of(np.asarray(views["image"]), 2)  # standardised ramps
        slope = np.diff(cells, axis=3).mean((2, 3, 4))[..., None]
        mean = cells.mean((2, 3))
        slope = slope * (cell - 1) / (tile - 1)  # of a pixel before it was enlarged
        found[compat] = (mean - mean[..., :1]) / slope
    moved = np.round(found["none"]).astype(int)
    assert set(np.unique(moved)) == set(range(-4, 5))  # differences of -2..2
    assert np.abs(found["official"]).max() < 0.05


@pytest.mark.parametrize("gray", [0.3, 1.0])
def test_a_share_of_images_is_grey(tiny, gray):
    method = tiny.method("jigsaw", gray=gray, compat="official")
    image = np.asarray(puzzle(method, tiny.batch(100))["image"])
    # Standardised channels of a grey image are equal.
    grey = np.ptp(image, axis=-1).max((1, 2)) < 0.05
    assert abs(grey.mean() - gray) < 5 * np.sqrt(gray * (1 - gray) / 100) + 1e-9


def test_labels_are_uniform(tiny):
    method, batch = tiny.method("jigsaw"), tiny.batch(480)
    draw = jax.jit(lambda key: method.make_views(key, batch)["label"])
    label = np.asarray(draw(jax.random.key(0)))
    counts = np.bincount(label, minlength=24)
    assert len(counts) == 24 and np.abs(counts - 20).max() < 5 * np.sqrt(20)
    assert np.any(label != np.asarray(draw(jax.random.key(1))))


def test_same_key_same_puzzle(tiny):
    method, batch = tiny.method("jigsaw"), tiny.batch(4)
    make = jax.jit(lambda key: method.make_views(key, batch))
    one, again, other = (make(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert np.any(np.asarray(one["image"]) != np.asarray(other["image"]))


def test_pixels_beside_the_tiles_have_exactly_no_gradient_into_the_logits(tiny):
    """What shows of a channel is one square of 12 px in every cell of 16, anywhere."""
    method, batch = tiny.method("jigsaw"), tiny.batch(6)
    views = puzzle(method, batch)
    init = jax.jit(lambda key: method.model.init(key, views, False))
    params = init(jax.random.key(0))

    @jax.jit
    @jax.grad
    def gradient(image):
        views = method.make_views(jax.random.key(0), {"image": image})
        return jnp.sum(jnp.sin(method.model.apply(params, views, False)))

    seen = np.asarray(gradient(jnp.asarray(batch["image"]))) != 0
    cells = np.moveaxis(cells_of(seen, 2), -1, 2)  # [B 4 3 16 16]
    corners = set()
    for cell in cells.reshape(-1, 16, 16):
        rows, cols = np.flatnonzero(cell.any(1)), np.flatnonzero(cell.any(0))
        assert (len(rows), len(cols), cell.sum()) == (12, 12, 144)
        corners.add((rows[0], cols[0]))
    assert {r for r, _ in corners} == {c for _, c in corners} == set(range(5))


def test_loss_worked_by_hand():
    outputs = jnp.log(jnp.float32([[1, 1, 2], [5, 1, 2]]))
    loss, metrics = jigsaw.loss_fn(outputs, jnp.array([1, 0]))
    assert loss == pytest.approx((np.log(4) + np.log(8 / 5)) / 2, rel=1e-6)
    assert metrics["top1"] == 0.5


def test_all_permutations_of_four_tiles_is_a_set(tiny):
    table = tiny.method("jigsaw", permutations=24).make_views.keywords["table"]
    assert sorted(map(tuple, table)) == list(itertools.permutations(range(4)))


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        ((32, 32), dict(grid=4), "config.method.grid: 4"),
        (
            (32, 32),
            dict(grid=3),
            r"config.data.size: 32x32 .*\(24, 24\) or \(36, 36\)",
        ),
        ((32, 64), dict(), r"config.data.size: 32x64 .*\(32, 32\)"),
        ((32, 32), dict(tile=15), "config.method.tile: 15 px .*at most 14"),
        ((32, 32), dict(tile=0), "config.method.tile: 0"),
        ((32, 32), dict(permutations=25), "config.method.permutations: 25 .*to 24"),
        ((32, 32), dict(permutations=1), "config.method.permutations: 1"),
        ((32, 32), dict(gray=1.5), "config.method.gray: 1.5"),
        ((32, 32), dict(compat="paper"), "config.method.compat: 'paper'"),
        ((32, 32), dict(pool="cls"), "config.method.pool: 'cls' needs"),
        ((32, 32), dict(pool="max"), "config.method.pool: 'max'"),
    ],
)
def test_what_cannot_work_is_refused(tiny, size, changes, said):
    with pytest.raises(UserError, match=said):
        tiny.method("jigsaw", size, **changes)


def test_a_puzzle_needs_positions(tiny):
    with pytest.raises(UserError, match="config.vit.posemb: 'none' hides"):
        tiny.method("jigsaw", vit_changes={"posemb": "none"})


def test_a_class_token_can_be_pooled(tiny):
    method = tiny.method("jigsaw", vit_changes={"cls": True}, pool="cls")
    views = puzzle(method, tiny.batch(2))
    out, params = jax.jit(lambda key: method.model.init_with_output(key, views, False))(
        jax.random.key(0)
    )
    assert out.shape == (2, 24) and out.dtype == jnp.float32
    assert "norm" in params["params"]["encoder"] and "norm" not in params["params"]
