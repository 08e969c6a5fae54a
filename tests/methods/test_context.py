"""Context prediction: which tile is which, where it was cut, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import context

# Rows and columns of the neighbours, label by label.
PLACES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def shown(batch, key, **changes):
    """The pixels that each tile shows: `views, bool [B K+1 H W]`.

    A tile depends on a pixel exactly where it was cut there.
    """
    numbers = dict(tile=8, gap=0, colour="project", pairs="all") | changes
    make = functools.partial(context.make_views, normalize=lambda x: x, **numbers)
    image = jnp.asarray(batch["image"])
    views = make(key, {"image": image})

    @jax.jit
    def used(image):
        tiles, pull = jax.vjp(lambda x: make(key, {"image": x})["tiles"], image)
        noise = jax.random.normal(jax.random.key(9), tiles.shape)
        one = [
            pull(jnp.zeros_like(noise).at[:, t].set(noise[:, t]))[0]
            for t in range(tiles.shape[1])
        ]
        return jnp.stack(one, axis=1)

    return views, np.abs(np.asarray(used(image))).max(-1) > 0


def boxes(seen):
    """Top and left of the one 8 px square that is seen: `[B T H W] -> [B T 2]`."""
    out = np.zeros((*seen.shape[:2], 2), int)
    for i in np.ndindex(seen.shape[:2]):
        rows, cols = np.flatnonzero(seen[i].any(1)), np.flatnonzero(seen[i].any(0))
        assert (len(rows), len(cols), seen[i].sum()) == (8, 8, 64)
        out[i] = rows[0], cols[0]
    return out


def test_every_tile_is_cut_from_its_cell_and_shows_it(tiny):
    batch = tiny.batch(8, (33, 33))
    views, seen = shown(batch, jax.random.key(0))
    assert views["tiles"].shape == (8, 9, 8, 8, 3)
    np.testing.assert_array_equal(views["label"], [list(range(8))] * 8)
    box = boxes(seen)
    cell = np.array([(0, 0), *PLACES]) + 1
    offset = box - 11 * cell
    assert offset.min() == 0 and offset.max() == 3  # a tile of 8 px in a cell of 11
    assert all(set(offset[..., a].ravel()) == {0, 1, 2, 3} for a in (0, 1))
    # I - a^T a / 6 in numbers, then the mean colour away.
    guard = np.array([[5, 2, -1], [2, 2, 2], [-1, 2, 5]]) / 6
    for b, t in np.ndindex(8, 9):
        top, left = box[b, t]
        cut = batch["image"][b, top : top + 8, left : left + 8] @ guard
        expected = cut - cut.mean((0, 1))
        np.testing.assert_allclose(views["tiles"][b, t], expected, atol=1e-5)


@pytest.mark.parametrize("gap", [1, 2, 3])
def test_tiles_keep_their_gap(tiny, gap):
    _, seen = shown(tiny.batch(12, (33, 33)), jax.random.key(0), gap=gap)
    box = boxes(seen)
    order = [1, 2, 3, 4, 0, 5, 6, 7, 8]  # raster order of the cells
    grid = box[:, order].reshape(12, 3, 3, 2)
    between = [np.diff(grid[..., a], axis=1 + a) - 8 for a in (0, 1)]
    assert min(x.min() for x in between) == gap
    offset = grid - 11 * np.stack(np.mgrid[:3, :3], axis=-1)[None]
    assert np.ptp(offset) == 3 - gap  # what the gap leaves is jitter


def test_one_random_neighbour(tiny):
    batch = tiny.batch(1, (33, 33))
    batch = {"image": np.tile(batch["image"], (64, 1, 1, 1))}
    views, seen = shown(batch, jax.random.key(0), pairs="one")
    assert views["tiles"].shape == (64, 2, 8, 8, 3)
    label = np.asarray(views["label"])
    assert label.shape == (64, 1) and set(label.ravel()) == set(range(8))
    cell = boxes(seen) // 11
    np.testing.assert_array_equal(cell[:, 0], np.ones((64, 2)))
    np.testing.assert_array_equal(cell[:, 1], 1 + np.array(PLACES)[label[:, 0]])


def test_same_key_same_views(tiny):
    method, batch = tiny.method("context", pairs="one"), tiny.batch(16)
    make = jax.jit(lambda key: method.make_views(key, batch))
    one, again, other = (make(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert np.any(np.asarray(one["label"]) != np.asarray(other["label"]))


def test_two_channels_of_a_tile_are_dropped(tiny):
    views = tiny.method("context", tile=8).make_views(jax.random.key(0), tiny.batch(40))
    std = np.sort(np.asarray(views["tiles"]).std(axis=(2, 3)), axis=-1)
    ratio = std[..., :2] / std[..., 2:]
    assert 0.005 < ratio.min() and ratio.max() < 0.015
    kept = np.asarray(views["tiles"]).std(axis=(2, 3)).argmax(-1)
    assert np.all(np.bincount(kept.ravel(), minlength=3) > 80)  # of 360


def test_two_images_in_three_are_grey(tiny):
    method, batch = tiny.method("context", colour="gray"), tiny.batch(100)
    x = np.asarray(method.make_views(jax.random.key(0), batch)["tiles"])
    x = x * np.float32(tiny.std)
    grey = np.ptp(x, axis=-1).max((2, 3)) < 1e-3  # [B 9]
    assert np.all(grey == grey[:, :1])  # the whole image, as in mmselfsup
    assert abs(grey[:, 0].mean() - 0.66) < 5 * np.sqrt(0.66 * 0.34 / 100)


@pytest.fixture(scope="module")
def case(tiny):
    """Method, views, random parameters, and its logits as a function of tiles."""
    method = tiny.method("context")
    views = method.make_views(jax.random.key(0), tiny.batch(2))
    init = functools.partial(method.model.init, train=False)
    params = tiny.random(jax.eval_shape(init, jax.random.key(0), views)["params"])
    apply = jax.jit(
        lambda x: method.model.apply({"params": params}, {"tiles": x}, False)
    )
    return method, views, params, apply


def test_logits_are_those_of_ordered_pairs_of_pooled_tiles(case):
    method, views, params, apply = case
    out = np.asarray(apply(views["tiles"]))
    assert out.shape == (2, 8, 8)
    encoder = method.model.encoder

    @jax.jit
    def tokens(tiles):
        def run(encoder, tiles):
            placed = encoder.place(encoder.embed(tiles), (2, 2))
            return encoder.encode(placed, False)

        return encoder.apply({"params": params["encoder"]}, tiles, method=run)

    for k in range(8):
        pair = [tokens(views["tiles"][:, t]) for t in (0, 1 + k)]
        x = np.stack([np.asarray(t).mean(1) for t in pair])
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        x = x * params["norm"]["scale"] + params["norm"]["bias"]
        x = np.concatenate([x[0], x[1]], axis=-1)
        x = x @ params["pair_embed"]["kernel"] + params["pair_embed"]["bias"]
        x = np.asarray(jax.nn.gelu(x, approximate=False))
        x = x @ params["head"]["kernel"] + params["head"]["bias"]
        np.testing.assert_allclose(out[:, k], x, atol=1e-4)


def test_a_pair_is_not_symmetric(case):
    _, views, _, apply = case
    pair = views["tiles"][:, :2]
    assert np.abs(apply(pair) - apply(pair[:, ::-1])).min() > 1e-3


def test_pixels_in_no_tile_have_exactly_no_gradient_into_the_logits(tiny, case):
    method, _, params, _ = case
    key, batch = jax.random.key(0), tiny.batch(2)

    @jax.jit
    @jax.grad
    def gradient(image):
        views = method.make_views(key, {"image": image})
        out = method.model.apply({"params": params}, views, False)
        return jnp.sum(jnp.sin(out))

    seen = np.abs(np.asarray(gradient(jnp.asarray(batch["image"])))).max(-1) > 0
    np.testing.assert_array_equal(seen.sum((1, 2)), [9 * 64] * 2)  # nine tiles of 8 px
    numbers = dict(gap=1, colour="drop")
    _, shown_pixels = shown(batch, key, **numbers)
    np.testing.assert_array_equal(seen, shown_pixels.any(1))


def test_loss_worked_by_hand():
    one = np.ones((1, 2, 8))
    one[0, 1, 6] = 9
    loss, metrics = context.loss_fn(jnp.log(jnp.float32(one)), jnp.array([[3, 6]]))
    assert loss == pytest.approx((np.log(8) + np.log(16 / 9)) / 2, rel=1e-6)
    assert metrics["top1"] == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(colour="grey"), "config.method.colour: 'grey'"),
        (dict(pairs="two"), "config.method.pairs: 'two'"),
        (dict(pool="max"), "config.method.pool: 'max'"),
        (dict(pool="cls"), "config.method.pool: 'cls' needs"),
        (dict(tile=6), "config.method.tile: 6 px .*patch of 4 px"),
        (dict(tile=12), "config.method.tile: 12 px .*cell of 10 px"),
        (dict(tile=0), "config.method.tile: 0"),
        (dict(gap=3), "config.method.gap: 3 px.*leaves 0 to 2"),
        (dict(gap=-1), "config.method.gap: -1"),
    ],
)
def test_what_cannot_work_is_refused(tiny, changes, said):
    with pytest.raises(UserError, match=said):
        tiny.method("context", **changes)
