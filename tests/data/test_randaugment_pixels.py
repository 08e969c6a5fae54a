"""RandAugment's distortions, one by one: by hand or by a second implementation."""

import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from vit_ssl_jax.data.randaugment import DISTORTIONS, distort

FILL = (124, 116, 104)
VALUES = np.arange(256, dtype=np.uint8)


def picture(height=40, width=30, seed=0):
    """Smooth colours and some noise: uint8 `[height width 3]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + c) + np.cos(y / (5 + c)) for c in range(3)]
    noise = rng.normal(0, 4, (height, width, 3))
    return (np.stack(waves, -1) * 50 + 128 + noise).clip(0, 255).astype(np.uint8)


def ramp():
    """Values are 3 x + 2 y + 20: bicubic interpolation leaves planes as they are."""
    y, x = np.mgrid[:40, :40]
    return np.repeat((3 * x + 2 * y + 20)[..., None], 3, axis=-1).astype(np.uint8)


def done(image, name, level, inc=True):
    out = distort(Image.fromarray(image), name, level, fill=FILL, inc=inc)
    return np.asarray(out).astype(int)


def table(name, level, inc=True):
    """What becomes of the values 0 to 255: `[256]`."""
    image = np.repeat(VALUES.reshape(16, 16, 1), 3, axis=-1)
    out = done(image, name, level, inc)
    assert (out == out[..., :1]).all()
    return out[..., 0].reshape(-1)


def test_invert_and_lighten():
    np.testing.assert_array_equal(table("invert", 0.9), 255 - VALUES.astype(int))
    expected = [*range(99, 99 + 128), *range(128, 256)]  # int(0.9 * 110) = 99
    assert table("solarize_add", -0.9).tolist() == expected


@pytest.mark.parametrize(
    ("level", "inc", "bits"),
    [
        (0.9, True, 1),  # 4 - int(3.6)
        (0.5, True, 2),
        (0.2, True, 4),
        (1.0, True, 0),
        (0.9, False, 3),
        (-0.9, True, 1),
    ],
)
def test_posterize_keeps_the_highest_bits(level, inc, bits):
    kept = VALUES // 2 ** (8 - bits) * 2 ** (8 - bits) if bits else 0 * VALUES
    np.testing.assert_array_equal(table("posterize", level, inc), kept)


@pytest.mark.parametrize(
    ("level", "inc", "threshold"),
    [(0.9, True, 26), (0.0, True, 256), (1.0, True, 0), (0.9, False, 230)],
)
def test_solarize_inverts_from_a_threshold_on(level, inc, threshold):
    """256 - int(0.9 * 256) = 26."""
    expected = [x if x < threshold else 255 - x for x in range(256)]
    assert table("solarize", level, inc).tolist() == expected


def test_autocontrast_stretches_and_equalize_is_pillows():
    image = (picture() // 4 + 60).astype(np.uint8)
    low, high = image.min((0, 1)), image.max((0, 1))
    expected = (image.astype(float) - low) * 255 / (high.astype(float) - low)
    assert np.abs(done(image, "autocontrast", 0.3) - expected).max() <= 1
    theirs = np.asarray(ImageOps.equalize(Image.fromarray(image)))
    np.testing.assert_array_equal(done(image, "equalize", -0.3), theirs)
    spread = np.sort(done(picture(300, 300), "equalize", 0).reshape(-1, 3), axis=0)
    assert np.abs(spread - np.linspace(0, 255, len(spread))[:, None]).max() < 6


def grey(image):
    """Luma of ITU-R 601 in whole numbers: `[h w 3] -> [h w 1]`."""
    return np.rint(image @ np.array([0.299, 0.587, 0.114]))[..., None]


def smooth(image):
    """Weights 1 around, 5 in the middle; the border stays: `[h w 3] -> [h w 3]`."""
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    h, w = image.shape[:2]
    total = sum(padded[i : i + h, j : j + w] for i in range(3) for j in range(3))
    out = np.rint((total + 4.0 * image) / 13)
    out[[0, -1]], out[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return out


def degenerate(name, image):
    """What an enhancement moves away from, by the definition of each."""
    if name == "color":
        return grey(image)
    if name == "contrast":
        return np.rint(grey(image).mean())
    return 0 * image if name == "brightness" else smooth(image)


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
@pytest.mark.parametrize(
    ("level", "inc", "factor"),
    [
        (0.9, True, 1.81),
        (-0.9, True, 0.19),
        (-1.0, True, 0.1),
        (0.0, True, 1.0),
        (0.9, False, 1.72),
        (-0.5, False, 1.0),
    ],
)
def test_enhancements_move_away_from_the_middle(name, level, inc, factor):
    image = picture()
    base = degenerate(name, image)
    expected = (base + factor * (image - base)).clip(0, 255)
    assert np.abs(done(image, name, level, inc) - expected).max() <= 2


def test_shears_and_rotations_of_a_plane():
    """Pixel (x, y) comes from the place that the matrix says; its centre is at 1/2."""
    y, x = np.mgrid[:40, :40] + 0.5
    cos, sin = math.cos(math.radians(27)), math.sin(math.radians(27))
    places = {
        ("shear_x", 0.5): (x + 0.15 * y, y),
        ("shear_x", -0.5): (x - 0.15 * y, y),
        ("shear_y", 0.5): (x, y + 0.15 * x),
        ("rotate", 0.9): (  # counter-clockwise, about the centre
            20 + cos * (x - 20) - sin * (y - 20),
            20 + sin * (x - 20) + cos * (y - 20),
        ),
    }
    for (name, level), (from_x, from_y) in places.items():
        out = done(ramp(), name, level)
        within = (np.minimum(from_x, from_y) > 3) & (np.maximum(from_x, from_y) < 37)
        expected = 3 * (from_x - 0.5) + 2 * (from_y - 0.5) + 20
        assert within.sum() > 900
        assert np.abs(out - expected[..., None])[within].max() <= 1.5, name
        outside = (np.minimum(from_x, from_y) < -1) | (np.maximum(from_x, from_y) > 41)
        assert outside.sum() > 20
        assert (out[outside] == FILL).all()


@pytest.mark.parametrize(("sign", "moved"), [(1, slice(9, 20)), (-1, slice(0, 11))])
def test_translations_are_part_of_the_side_and_filled(sign, moved):
    """0.45 of 20 pixels is 9; the other side is longer and of no account."""
    image = picture(40, 20)
    place = slice(0, 11) if sign > 0 else slice(9, 20)
    expected = np.broadcast_to(np.array(FILL), (40, 20, 3)).copy()
    expected[:, place] = image[:, moved]
    np.testing.assert_array_equal(done(image, "translate_x", sign * 1.0), expected)
    turned = done(image.swapaxes(0, 1).copy(), "translate_y", sign * 1.0)
    np.testing.assert_array_equal(turned, expected.swapaxes(0, 1))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_each_keeps_size_and_bytes(name):
    image = picture(31, 17)
    out = distort(Image.fromarray(image), name, 0.9, fill=FILL, inc=True)
    assert (out.size, out.mode) == ((17, 31), "RGB")
    assert (np.asarray(out) != image).any()
