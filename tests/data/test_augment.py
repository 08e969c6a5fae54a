"""Augmentation of training images: what is done, in which order, and what can't be."""

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import crops, pipeline, sources
from vit_ssl_jax.data.augment import make_augmentation
from vit_ssl_jax.data.randaugment import make_randaugment
from vit_ssl_jax.errors import UserError

RATIO = (3 / 4, 4 / 3)
CENTRE = {"size": (24, 32), "resize": 40, "interpolation": "bicubic"}
PLAIN = {"crop": (), "ratio": RATIO, "flip": False} | CENTRE


def picture(height, width):
    """Noise without black: uint8 `[height width 3]`."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("crop", [None, ()])
def test_without_crop_and_flip_the_centre_is_left(crop):
    image = picture(60, 90)
    out = make_augmentation(**PLAIN | {"crop": crop})(np.random.default_rng(0), image)
    np.testing.assert_array_equal(out, crops.resize_and_center_crop(image, **CENTRE))


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
    move = make_augmentation(**PLAIN | {"size": (6, 9), "resize": 6, "pad": pad})
    for _ in range(tries):
        found[windows[move(rng, image).tobytes()]] += 1
    assert 25 < min(found.values()) and max(found.values()) < 105


def test_pad_follows_the_resize_and_precedes_the_flip():
    image, seen = picture(60, 90), set()
    augment = make_augmentation(**PLAIN | {"flip": True, "pad": 3})
    for seed in range(20):
        out = augment(np.random.default_rng(seed), image)
        again = np.random.default_rng(seed)
        expected = crops.resize_and_center_crop(image, **CENTRE)
        expected = crops.random_flip(again, crops.pad_and_crop(again, expected, pad=3))
        np.testing.assert_array_equal(out, expected)
        assert out.shape == (24, 32, 3)
        seen.add(out.tobytes())
    assert len(seen) > 10


@pytest.mark.parametrize(("squash", "shape"), [(False, (36, 54)), (True, (36, 36))])
def test_train_resize_cuts_random_windows_of_the_resized_image(squash, shape):
    """big_vision's resmall_crop and resize_crop: by Pillow, every window turns up."""
    image = picture(60, 90)
    resized = Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC)
    resized = np.asarray(resized)
    windows = {
        resized[i : i + 24, j : j + 32].tobytes(): (i, j)
        for i in range(shape[0] - 23)
        for j in range(shape[1] - 31)
    }
    augment = make_augmentation(**PLAIN | {"train_resize": 36, "squash": squash})
    rng = np.random.default_rng(0)
    found = {windows[augment(rng, image).tobytes()] for _ in range(20 * len(windows))}
    assert found == set(windows.values())


def test_squash_trains_on_what_is_evaluated():
    source = sources.open_source("fake", "", "train[:8]")
    numbers = {"size": (16, 12), "resize": 20, "interpolation": "bicubic"}
    numbers |= {"batch_size": 8, "squash": True}
    (known,) = pipeline.eval_batches(source, **numbers)
    ways = {"crop": (), "ratio": RATIO, "flip": False, "seed": 0}
    batch = next(pipeline.train_batches(source, **numbers, **ways))
    np.testing.assert_array_equal(batch["image"], known["image"][batch["id"]])


def test_single_draw_is_the_clamped_crop():
    image, box = picture(20, 90), {"scale": (0.5, 1.0), "ratio": RATIO}
    how = {"size": (24, 32), "interpolation": "bicubic"}
    changes = {"crop": (0.5, 1.0), "single_draw": True}
    out = make_augmentation(**PLAIN | changes)(np.random.default_rng(1), image)
    rng = np.random.default_rng(1)
    clamped = crops.random_resized_crop(rng, image, single_draw=True, **how, **box)
    np.testing.assert_array_equal(out, clamped)
    retried = crops.random_resized_crop(np.random.default_rng(1), image, **how, **box)
    assert (out != retried).any()


def test_randaugment_follows_crop_and_flip():
    image, text, mean = picture(60, 90), "rand-m9-p1-inc1", (0.2, 0.4, 0.6)
    plain = {"crop": (0.2, 1.0), "ratio": RATIO, "flip": True} | CENTRE
    augment = make_augmentation(**plain, randaugment=text, mean=mean)
    changed = 0
    for seed in range(10):
        out = augment(np.random.default_rng(seed), image)
        rng = np.random.default_rng(seed)
        cropped = make_augmentation(**plain)(rng, image)
        expected = make_randaugment(text, mean)(rng, cropped)
        np.testing.assert_array_equal(out, expected)
        changed += (out != cropped).any()
    assert changed > 5


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
    for a, b in zip(plain["image"], moved["image"], strict=True):
        padded = np.pad(a, ((4, 4), (4, 4), (0, 0)))
        windows = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
        assert any(np.array_equal(b, window) for window in windows)
        whole += np.array_equal(a, b)
    assert whole < 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": (0.2, 1.0)}, "config.data.pad: 4 .*set pad=0 or crop"),
        (
            {"crop": (0.2, 1.0), "pad": 0, "train_resize": 40},
            "config.data.train_resize: 40 .*set train_resize=0 or crop",
        ),
        ({"train_resize": 40}, "config.data.train_resize: 40 .*pad=4"),
        (
            {"pad": 0, "train_resize": 31},
            r"config.data.train_resize: 31 .*\(32, 32\).*at least 32",
        ),
        ({"randaugment": "rand-m9-x1"}, "config.data.randaugment: 'rand-m9-x1'"),
    ],
)
def test_what_excludes_each_other_raises(changes, message):
    with pytest.raises(UserError, match=message):
        batch_of(**changes)


def test_a_keyword_that_does_not_exist_raises_at_once():
    with pytest.raises(TypeError, match="colour"):
        batch_of(colour=1)


def test_batches_do_not_depend_on_threads_or_processes():
    changes = {"pad": 0, "train_resize": 40, "randaugment": "rand-m9-mstd0.5-inc1"}
    whole = batch_of(**changes, threads=1)["image"]
    np.testing.assert_array_equal(batch_of(**changes, threads=4)["image"], whole)
    halves = [batch_of(**changes, shard=(i, 2))["image"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
