"""Crops on the device: those of the host where nothing is drawn, their laws where it is."""

import jax
import numpy as np
import pytest

from vit_ssl_jax.data import augment
from vit_ssl_jax.ops import cropping

SIZE = (16, 20)
PLAIN = dict(
    size=SIZE,
    crop=(),
    ratio=(3 / 4, 4 / 3),
    flip=False,
    interpolation="bicubic",
    resize=20,
    pad=0,
    train_resize=0,
    squash=False,
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 6, 8, 3)).astype(np.uint8)
    return coarse.repeat(5, axis=1).repeat(4, axis=2)  # [6 30 32 3]


def on_device(images, **changes):
    made = cropping.make_augmentation(images.shape[1:3], **PLAIN | changes)
    return np.asarray(jax.jit(made)(KEY, images))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(squash=True),
        dict(resize=30),  # not resized
        dict(resize=47, interpolation="bilinear"),
        dict(resize=5),  # less than the window needs
    ],
)
def test_without_draws_pixels_are_the_hosts_within_a_rounding(images, changes):
    host = augment.make_augmentation(**PLAIN | changes)
    wanted = np.stack([host(np.random.default_rng(0), x) for x in images])
    got = on_device(images, **changes)
    assert got.dtype == np.uint8 and got.shape == (6, *SIZE, 3)
    assert np.abs(got.astype(int) - wanted).max() <= 1


def test_a_whole_box_is_the_image(images):
    """Area 1 of a ratio that is the image's own; of its size, so nothing is resized."""
    how = dict(crop=(1.0, 1.0), ratio=(32 / 30, 32 / 30), size=(30, 32))
    np.testing.assert_array_equal(on_device(images, **how), images)


def test_half_of_the_images_are_mirrored_whole():
    image = np.arange(20, dtype=np.uint8)[None, None, :, None]
    image = np.broadcast_to(image, (400, 16, 20, 3))
    got = on_device(image, resize=16, flip=True)
    mirrored = (got == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (got == image).all(axis=(1, 2, 3))).all()
    assert abs(mirrored.sum() - 200) < 50  # five deviations


@pytest.mark.parametrize(
    ("changes", "places"),
    [(dict(pad=2, resize=16), 25), (dict(train_resize=18), 3 * 3)],
)
def test_every_place_of_a_window_is_as_likely(changes, places):
    """A pixel's colours are its row and column, from 1 on: outside it is black."""
    side = (16, 20) if "pad" in changes else (18, 22)
    rows, cols = np.indices(side) + 1
    image = np.stack([rows, cols, 0 * rows], axis=-1).astype(np.uint8)
    got = on_device(np.broadcast_to(image, (2000, *side, 3)), **changes)
    corners = got[:, 8, 8, :2].astype(int) - 9
    found, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(found) == places and np.ptp(found[:, 0]) == np.ptp(found[:, 1])
    mean = 2000 / places
    assert np.abs(counts - mean).max() < 5 * mean**0.5
    for image, (top, left) in zip(got[:20], corners[:20], strict=True):
        r, c = np.indices(SIZE) + 1
        inside = (r + top >= 1) & (r + top <= side[0])
        inside &= (c + left >= 1) & (c + left <= side[1])
        np.testing.assert_array_equal(image[..., 0], np.where(inside, r + top, 0))
        np.testing.assert_array_equal(image[..., 1], np.where(inside, c + left, 0))
