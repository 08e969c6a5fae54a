"""Colours against Pillow, colorsys and scikit-image; draws against their law."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats
from skimage import data

from vit_ssl_jax.ops import jitter

FACTORS = (0.6, 0.9, 1.4)


@pytest.fixture(scope="module")
def photo():
    """8x8 pixels of a photograph, bytes."""
    return data.astronaut()[100:340:30, 180:420:30]


def one(function, image, factor):
    """A function of one image `[H W 3]`."""
    return np.asarray(function(jnp.float32(image)[None], jnp.float32([factor])))[0]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("function", "enhance"),
    [
        (jitter.adjust_brightness, ImageEnhance.Brightness),
        (jitter.adjust_contrast, ImageEnhance.Contrast),
        (jitter.adjust_saturation, ImageEnhance.Color),
    ],
)
def test_pillow_does_the_same_in_bytes(photo, function, enhance, factor):
    """Pillow rounds the luma and the result: up to two steps of 255."""
    theirs = np.asarray(enhance(Image.fromarray(photo)).enhance(factor))
    ours = 255 * one(function, photo / 255, factor)
    assert np.abs(ours - theirs).max() < 2


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_is_turned_as_by_colorsys(photo, shift):
    image = np.concatenate([photo / 255, np.eye(3)[None].repeat(8, 1)[:, :8]])
    image[0, 0] = 0.5  # grey has no hue
    image[0, 1] = 0.0
    expected = np.zeros_like(image)
    for place in np.ndindex(*image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[place])
        expected[place] = colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)
    np.testing.assert_allclose(
        one(jitter.adjust_hue, image, shift), expected, atol=2e-6
    )


def test_greyscale_weighs_the_channels():
    luma = jitter.greyscale(jnp.eye(3).reshape(1, 1, 3, 3))
    np.testing.assert_allclose(np.ravel(luma), [0.2989, 0.587, 0.114])


def test_clamps_by_hand():
    """On standardised pixels: what is negative is lost, hue lets the value be."""
    image = np.array([[[2.0, -1.0, 0.5], [-0.5, -0.5, 1.5]]])
    np.testing.assert_allclose(
        one(jitter.adjust_brightness, image, 0.4), [[[0.8, 0, 0.2], [0, 0, 0.6]]]
    )
    grey = 0.2989 * 2 - 0.587 + 0.114 * 0.5
    expected = [1, 0, 0.5 * 0.5 + 0.5 * grey]
    ours = one(jitter.adjust_saturation, image, 0.5)
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-6)
    # A third of a circle on, red becomes green, at its value; the others are clamped.
    ours = one(jitter.adjust_hue, image, 1 / 3)
    np.testing.assert_allclose(ours[0, 0], [0.5, 2, 0], atol=1e-5)
    np.testing.assert_allclose(ours[0, 1], [1.5, 0, 0], atol=1e-5)


OFF = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


@pytest.fixture(scope="module")
def run():
    """`jitter.jitter`, compiled once a setting."""
    return jax.jit(jitter.jitter, static_argnames=tuple(OFF))


def test_no_jitter_changes_nothing(photo, run):
    image = jnp.float32(photo / 255)[None]
    np.testing.assert_allclose(run(jax.random.key(0), image, **OFF), image, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("brightness", 0.6, 1.4), ("saturation", 0.6, 1.4)]
)
def test_factors_are_uniform(run, name, low, high):
    """Read back from the pixel that the function scales."""
    image = jnp.broadcast_to(jnp.float32([0.4, 0.2, 0.2]), (2000, 1, 1, 3))
    out = np.asarray(run(jax.random.key(1), image, **OFF | {name: 0.4}))[:, 0, 0]
    factor = out[:, 0] / 0.4
    if name == "saturation":
        factor = (out[:, 0] - out[:, 1]) / 0.2
    law = stats.uniform(low, high - low)
    assert stats.kstest(factor, law.cdf).pvalue > 1e-3


def test_every_order_turns_up(run):
    """Brightness with its clamp before saturation, or after it: each half of the time.

    The factors are read back from a pixel that is dark enough never to be clamped.
    """
    pixels = jnp.float32([[[[0.3, 0.1, 0.1], [0.9, 0.3, 0.3]]]])
    image = jnp.broadcast_to(pixels, (2000, 1, 2, 3))
    numbers = dict(brightness=0.5, contrast=0.0, saturation=0.5, hue=0.0)
    out = run(jax.random.key(2), image, **numbers)
    lumas = (jitter.greyscale(x)[:, 0, 0, 0] for x in (out, image))
    bright = jnp.divide(*lumas)
    saturate = (out[:, 0, 0, 0] - out[:, 0, 0, 1]) / (0.2 * bright)
    first = jitter.adjust_saturation(jitter.adjust_brightness(image, bright), saturate)
    second = jitter.adjust_brightness(jitter.adjust_saturation(image, saturate), bright)
    differ = np.abs(first - second).max(axis=(1, 2, 3)) > 5e-3
    is_first, is_second = (
        np.abs(out - x).max(axis=(1, 2, 3)) < 1e-3 for x in (first, second)
    )
    assert differ.sum() > 200
    assert np.all(is_first | is_second)
    assert 0.4 < is_first[differ].mean() < 0.6


def test_images_are_drawn_apart_and_the_key_decides(photo, run):
    image = jnp.broadcast_to(jnp.float32(photo / 255)[None], (3, 8, 8, 3))
    numbers = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    out, again = (run(jax.random.key(3), image, **numbers) for _ in range(2))
    np.testing.assert_array_equal(out, again)
    assert np.abs(out[0] - out[1]).max() > 0.01
    assert np.all((out >= 0) & (out <= 1))
    other = run(jax.random.key(4), image, **numbers)
    assert np.abs(out - other).max() > 0.01


def test_sometimes_is_all_or_nothing():
    zeros, ones = jnp.zeros((2000, 2, 2, 3)), jnp.ones((2000, 2, 2, 3))
    out = jitter.sometimes(jax.random.key(0), 0.2, ones, zeros)
    each = np.asarray(out).reshape(2000, -1)
    assert np.all(each == each[:, :1])
    assert 0.16 < each[:, 0].mean() < 0.24
