"""Augmentations on the device against Pillow, scipy and the law of their boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage, stats
from skimage import data

from vit_ssl_jax.data import crops, resizing
from vit_ssl_jax.ops import views

BOX = dict(scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3))


@pytest.fixture(scope="module")
def photo():
    """40x56 pixels of a photograph, bytes."""
    return np.ascontiguousarray(data.astronaut()[60:260:5, 100:380:5])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("box", [(0, 0, 40, 56), (3, 5, 33, 20), (10, 2, 9, 50)])
def test_a_crop_is_resized_as_pillow_does(photo, interpolation, box):
    """Columns, then rows; it rounds to bytes in between: a step and a half of 255."""
    top, left, height, width = box
    part = photo[top : top + height, left : left + width]
    theirs = resizing.resize(part, (height, 24), interpolation)
    theirs = resizing.resize(theirs, (16, 24), interpolation)
    boxes = [jnp.array([x]) for x in box]
    image = np.float32(photo)[None] / 255
    ours = views.resize_box(image, boxes, (16, 24), interpolation)[0]
    np.testing.assert_allclose(255 * ours, theirs, atol=1.5)


def test_boxes_have_the_law_of_those_on_the_host():
    """Tall images, of which many boxes don't fit: height, width and place."""
    count, shape = 4000, (60, 20)
    ours = views.draw_boxes(jax.random.key(0), count, shape, **BOX)
    rng = np.random.default_rng(0)
    theirs = np.array([crops.draw_box(rng, shape, **BOX) for _ in range(count)]).T
    for mine, other in zip(ours, theirs, strict=True):
        assert stats.ks_2samp(np.asarray(mine), other).pvalue > 1e-3
    top, left, height, width = map(np.asarray, ours)
    assert (top >= 0).all() and (top + height <= 60).all()
    assert (left >= 0).all() and (left + width <= 20).all() and height.min() > 0


@pytest.mark.parametrize("shape", [(10, 100), (100, 10)])
def test_a_strip_that_no_box_fits_is_cut_in_the_middle(shape):
    """As on the host."""
    how = dict(scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3))
    ours = views.draw_boxes(jax.random.key(0), 2, shape, **how)
    theirs = crops.draw_box(np.random.default_rng(0), shape, **how)
    assert [tuple(map(int, box)) for box in zip(*ours, strict=True)] == [theirs] * 2


def test_every_image_has_a_crop_of_its_own(photo):
    image = np.broadcast_to(np.float32(photo) / 255, (3, 40, 56, 3))
    made = views.random_resized_crop(jax.random.key(0), image, size=(16, 16), **BOX)
    assert made.shape == (3, 16, 16, 3) and made.min() >= 0 and made.max() <= 1
    assert np.abs(made[0] - made[1]).max() > 0.1


@pytest.mark.parametrize("size", [5, 9])
def test_blur_is_scipys(photo, size):
    """Its kernel cut at the same width, the border mirrored without the edge pixel."""
    image, sigma = np.float32(photo) / 255, (0.3, 1.7)
    both = jnp.stack([image, image])
    ours = views.gaussian_blur(both, jnp.array(sigma), size)
    for mine, s in zip(ours, sigma, strict=True):
        sides = (s, s, 0)
        how = dict(mode="mirror", truncate=(size // 2) / s)
        theirs = ndimage.gaussian_filter(image, sides, **how)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_solarizing_is_pillows(photo):
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(photo), 128))
    ours = views.solarize(np.float32(photo)[None] / 255)[0]
    np.testing.assert_allclose(255 * ours, theirs, atol=1e-4)
