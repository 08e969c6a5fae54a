"""Resizing: Pillow's to the bit, and how near the fast way comes to it on photographs."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from vit_ssl_jax.data import resizing

PHOTOS = ("astronaut", "chelsea", "coffee")


def by_hand(image, size, interpolation):
    """Pillow as everyone calls it."""
    made = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(made.resize(size[::-1], resizing.RESAMPLING[interpolation]))


@pytest.mark.parametrize("interpolation", resizing.RESAMPLING)
@pytest.mark.parametrize("size", [(20, 31), (64, 7), (150, 90)])
def test_pillow_s_is_pillow_s(interpolation, size):
    """Of a part of an image, mirrored, too: no copy is in the way."""
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    for part in (image, image[5:60, 3:80], image[:, ::-1]):
        ours = resizing.resize(part, size, interpolation)
        np.testing.assert_array_equal(ours, by_hand(part, size, interpolation))


@pytest.mark.parametrize("interpolation", resizing.RESAMPLING)
@pytest.mark.parametrize("shrunk", [0.7, 1.1, 1.3, 1.6, 1.9, 2.5])
def test_near_is_near(interpolation, shrunk):
    """At least 44 dB over three photographs, one side half as much smaller again."""
    error = []
    for name in PHOTOS:
        image = getattr(skimage.data, name)()[20:290, 30:270]
        size = round(270 / shrunk), round(240 / (1 + (shrunk - 1) / 2))
        near = resizing.resize(image, size, interpolation, "near")
        theirs = by_hand(image, size, interpolation)
        assert near.shape == theirs.shape and near.dtype == np.uint8
        error.append(np.mean((near.astype(float) - theirs) ** 2))
    assert 10 * np.log10(255**2 / np.mean(error)) >= 44


@pytest.mark.parametrize("way", resizing.WAYS)
def test_an_image_of_the_size_stays_as_it_is(way):
    image = np.zeros((5, 6, 3), np.uint8)
    assert resizing.resize(image, (5, 6), "bicubic", way) is image
