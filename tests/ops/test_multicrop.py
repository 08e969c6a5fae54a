"""Crops of an image on the device: their law, their augmentations, their pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.ops import multicrop, views

KEY, SIZE = jax.random.key(3), (16, 16)


@pytest.fixture(scope="module")
def image():
    """Smooth colours `[64 32 32 3]` in [0, 1]."""
    rng = np.random.default_rng(0)
    coarse = np.float32(rng.uniform(size=(64, 4, 4, 3)))
    return jnp.clip(jax.image.resize(coarse, (64, 32, 32, 3), "bilinear"), 0.0, 1.0)


@functools.cache
def drawer(count):
    """Draws so many crops, their probabilities as arguments."""

    @jax.jit
    def draw(key, image, blur, solarize):
        how = dict(size=SIZE, scale=(0.3, 1.0), interpolation="bicubic")
        return multicrop.draw(key, image, blur=blur, solarize=solarize, **how)

    return lambda key, image, blur, solarize: np.asarray(
        draw(key, image, (blur,) * count, (solarize,) * count)
    )


def test_crops_are_drawn_one_by_one_and_follow_the_key(image):
    draw = drawer(2)
    first, again = (draw(KEY, image, 0.5, 0.2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (64, 2, *SIZE, 3)
    assert first.min() >= 0 and first.max() <= 1
    other = draw(jax.random.key(4), image, 0.5, 0.2)
    for a, b in ((first[:, 0], first[:, 1]), (first, other), (first[1:], first[:-1])):
        assert np.abs(a - b).mean() > 0.05


def test_blur_and_solarising_come_last_and_by_their_probabilities(image):
    draw = drawer(2)
    plain = draw(KEY, image, 0.0, 0.0)
    np.testing.assert_allclose(
        draw(KEY, image, 0.0, 1.0), views.solarize(jnp.asarray(plain)), atol=1e-6
    )
    blurred = draw(KEY, image, 1.0, 0.0)
    changed = np.abs(blurred - plain).max((2, 3, 4)) > 1e-4
    assert changed.mean() > 0.9  # a radius near 0.1 changes nothing
    np.testing.assert_allclose(blurred.mean(), plain.mean(), atol=5e-3)
    half = draw(KEY, image, 0.5, 0.0)
    same = np.abs(half - plain).max((2, 3, 4)) < 1e-6
    assert 0.35 < same.mean() < 0.7


def test_a_fifth_is_grey_and_four_fifths_change_colour(image):
    crops = drawer(2)(KEY, image, 0.0, 0.0).reshape(-1, *SIZE, 3)
    grey = np.ptp(crops, axis=-1).max((1, 2)) < 1e-6
    assert abs(grey.mean() - multicrop.GREYED) < 4 * (0.16 / len(grey)) ** 0.5
    # Of one colour, so that no crop changes it: what isn't jittered stays.
    flat = jnp.broadcast_to(jnp.float32([0.3, 0.5, 0.4]), image.shape)
    crops = drawer(2)(KEY, flat, 0.0, 0.0).reshape(-1, *SIZE, 3)
    kept = np.abs(crops - np.float32([0.3, 0.5, 0.4])).max((1, 2, 3)) < 1e-5
    expected = (1 - multicrop.JITTERED) * (1 - multicrop.GREYED)
    assert abs(kept.mean() - expected) < 4 * (expected / len(kept)) ** 0.5


def test_pictures_show_the_crops(tiny):
    shapes = {"global": (3, 2, 32, 32, 3), "local": (3, 4, 16, 16, 3)}
    crops = {k: jnp.zeros(shape) + i for i, (k, shape) in enumerate(shapes.items())}
    pictures = multicrop.show(crops, (tiny.mean, tiny.std))
    assert list(pictures) == [
        "global crop 1",
        "global crop 2",
        "local crop 1",
        "local crop 2",
    ]
    mean, std = np.float32(tiny.mean), np.float32(tiny.std)
    for name, value in (("global crop 2", mean), ("local crop 1", mean + std)):
        assert pictures[name].shape == (3, 32, 32, 3)
        expected = np.broadcast_to(value, (3, 32, 32, 3))
        np.testing.assert_allclose(pictures[name], expected, atol=1e-6)
