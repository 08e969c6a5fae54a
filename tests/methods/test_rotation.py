"""Rotation: labels as published, pixels that only move, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import rotation

# The published test: [[0, 1], [2, 3]] under labels 0 to 3.
TURNS = [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]


def plain(image):
    """In place of standardising."""
    return image


def test_labels_are_the_published_turns():
    image = jnp.float32([[0, 1], [2, 3]]).reshape(1, 2, 2, 1)
    out = rotation.turn(image, jnp.arange(4)[None])
    np.testing.assert_array_equal(out[0, ..., 0], TURNS)


def test_pixels_only_move_as_in_numpy(tiny):
    image = tiny.batch(3)["image"]
    label = np.array([[3], [0], [1]])
    out = rotation.turn(jnp.asarray(image), jnp.asarray(label))
    for i, k in enumerate(label[:, 0]):
        np.testing.assert_array_equal(out[i, 0], np.rot90(image[i], k))


def test_four_quarters_and_one_with_three_are_the_image(tiny):
    image = jnp.asarray(tiny.batch(2)["image"])
    once, thrice = jnp.array([[1], [1]]), jnp.array([[3], [3]])
    x = image
    for _ in range(4):
        x = rotation.turn(x, once)[:, 0]
    np.testing.assert_array_equal(x, image)
    back = rotation.turn(rotation.turn(image, once)[:, 0], thrice)[:, 0]
    np.testing.assert_array_equal(back, image)


def test_all_turns_of_every_image_are_in_one_step(tiny):
    batch = tiny.batch(2)
    views = rotation.make_views(None, batch, normalize=plain, turns="all")
    assert views["image"].shape == (2, 4, 32, 32, 3)
    np.testing.assert_array_equal(views["label"], [[0, 1, 2, 3]] * 2)
    for i in range(2):
        for k in range(4):
            turned = np.rot90(batch["image"][i], k)
            np.testing.assert_array_equal(views["image"][i, k], turned)


def test_one_turn_is_drawn_for_every_image():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    batch = {"image": jnp.broadcast_to(image, (400, 2, 2, 1))}

    def draw(seed):
        key = jax.random.key(seed)
        return rotation.make_views(key, batch, normalize=plain, turns="one")

    views = draw(0)
    assert views["image"].shape == (400, 1, 2, 2, 1)
    label = np.asarray(views["label"])[:, 0]
    expected = np.float32(TURNS)[label]
    np.testing.assert_array_equal(views["image"][:, 0, ..., 0], expected)
    assert np.abs(np.bincount(label, minlength=4) - 100).max() < 5 * 10
    assert np.any(label != np.asarray(draw(1)["label"])[:, 0])
    np.testing.assert_array_equal(label, np.asarray(draw(0)["label"])[:, 0])


def test_the_encoder_sees_standardised_pixels(tiny):
    batch = tiny.batch(2)
    views = tiny.method("rotation").make_views(jax.random.key(0), batch)
    expected = (batch["image"] - np.float32(tiny.mean)) / np.float32(tiny.std)
    np.testing.assert_allclose(views["image"][:, 0], expected, atol=1e-6)


def test_loss_worked_by_hand():
    outputs = jnp.log(jnp.float32([[[1, 1, 1, 1], [1, 5, 1, 1]]]))
    loss, metrics = rotation.loss_fn(outputs, jnp.array([[3, 1]]))
    assert loss == pytest.approx((np.log(4) + np.log(8 / 5)) / 2, rel=1e-6)
    assert metrics["top1"] == 0.5
    with pytest.raises(AssertionError):
        rotation.loss_fn(outputs, jnp.array([3]))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_every_turned_image_has_logits_of_its_own(tiny, pool):
    """The logits of a turned image don't depend on the others beside it."""
    method = tiny.method("rotation", vit_changes={"cls": pool == "cls"}, pool=pool)
    views = method.make_views(jax.random.key(0), tiny.batch(2))
    params = jax.jit(lambda key: method.model.init(key, views, False))(
        jax.random.key(0)
    )
    run = jax.jit(lambda image: method.model.apply(params, {"image": image}, False))
    out = np.asarray(run(views["image"]))
    assert out.shape == (2, 4, 4)
    other = np.asarray(views["image"]).copy()
    other[:, 1] = 0.0
    changed = np.abs(np.asarray(run(other)) - out).max(-1) > 0
    np.testing.assert_array_equal(changed, [[False, True, False, False]] * 2)
    assert np.abs(out[:, 0] - out[:, 1]).min() > 0


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        ((32, 32), dict(turns="two"), "config.method.turns: 'two'"),
        ((32, 32), dict(pool="cls"), "config.method.pool: 'cls' needs"),
        ((32, 32), dict(pool="max"), "config.method.pool: 'max'"),
        ((32, 64), dict(), r"config.data.size: 32x64 .*set it to \(32, 32\)"),
    ],
)
def test_what_cannot_work_is_refused(tiny, size, changes, said):
    with pytest.raises(UserError, match=said):
        tiny.method("rotation", size, **changes)
