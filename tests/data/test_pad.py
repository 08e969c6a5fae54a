"""Padding before a crop: torchvision's RandomCrop(size, padding)."""

import numpy as np
import pytest

from vit_ssl_jax.data import crops, pipeline, sources
from vit_ssl_jax.errors import UserError

RATIO = (3 / 4, 4 / 3)


def picture(height, width):
    """Noise without black: uint8 `[height width 3]`."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("pad", [1, 4])
def test_pad_moves_the_image_and_shows_black_outside(pad):
    """Every window of the padded image turns up, each as often: RandomCrop(padding)."""
    image, rng = picture(6, 9), np.random.default_rng(0)
    padded = np.zeros((6 + 2 * pad, 9 + 2 * pad, 3), np.uint8)
    padded[pad:-pad, pad:-pad] = image
    places = [(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
    windows = {padded[i : i + 6, j : j + 9].tobytes(): (i, j) for i, j in places}
    found = dict.fromkeys(places, 0)
    tries = 60 * len(places)
    numbers = {"ratio": RATIO, "resize": 6, "interpolation": "bilinear"}
    for _ in range(tries):
        out = crops.train_transform(
            rng, image, size=(6, 9), crop=(), flip=False, pad=pad, **numbers
        )
        found[windows[out.tobytes()]] += 1
    assert 25 < min(found.values()) and max(found.values()) < 105


def test_pad_follows_the_resize_and_precedes_the_flip():
    image = picture(60, 90)
    centre = {"size": (24, 32), "resize": 40, "interpolation": "bicubic"}
    seen = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        out = crops.train_transform(
            rng, image, crop=None, ratio=RATIO, flip=True, pad=3, **centre
        )
        again = np.random.default_rng(seed)
        expected = crops.resize_and_center_crop(image, **centre)
        expected = crops.random_flip(again, crops.pad_and_crop(again, expected, pad=3))
        np.testing.assert_array_equal(out, expected)
        assert out.shape == (24, 32, 3)
        seen.add(out.tobytes())
    assert len(seen) > 10


def batch_of(**changes):
    """The first training batch of noise of 32 px."""
    numbers = {"size": (32, 32), "crop": (), "ratio": RATIO, "flip": False, "pad": 4}
    numbers |= {"interpolation": "bilinear", "resize": 32, "seed": 0, "batch_size": 16}
    source = sources.open_source("fake", "", "train[:16]")
    return next(pipeline.train_batches(source, **numbers | changes))


def test_batches_are_padded():
    plain, moved = batch_of(pad=0), batch_of()
    np.testing.assert_array_equal(plain["id"], moved["id"])
    whole = 0
    for a, b in zip(plain["image"], moved["image"]):
        padded = np.pad(a, ((4, 4), (4, 4), (0, 0)))
        windows = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
        assert any(np.array_equal(b, window) for window in windows)
        whole += np.array_equal(a, b)
    assert whole < 4


def test_a_random_crop_is_not_padded():
    with pytest.raises(UserError, match="config.data.pad: 4 .*set pad=0 or crop"):
        batch_of(crop=(0.2, 1.0))
