"""Crops: against Pillow, the closed form of torchvision's box, and broken files."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_ssl_jax.data import crops

RATIO = (3 / 4, 4 / 3)


def picture(height, width, seed=0):
    """Smooth colours and some noise: uint8 `[height width 3]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + c) + np.cos(y / (5 + c)) for c in range(3)]
    noise = rng.normal(0, 4, (height, width, 3))
    return (np.stack(waves, -1) * 50 + 128 + noise).clip(0, 255).astype(np.uint8)


def encode(pixels, form, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


FORMS = [
    ("JPEG", "RGB", {"quality": 95}),
    ("JPEG", "RGB", {"quality": 95, "progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {"quality": 95}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "L", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {}),
    ("GIF", "P", {}),
]


@pytest.mark.parametrize(("form", "mode", "options"), FORMS)
def test_decode_agrees_with_pillow(form, mode, options):
    data = encode(picture(40, 50), form, mode, **options)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int32)
    ours = crops.decode(data)
    assert (ours.shape, ours.dtype) == ((40, 50, 3), np.uint8)
    assert np.abs(ours - theirs).mean() < 1.5


@pytest.mark.parametrize(("form", "mode", "options"), FORMS)
def test_files_cut_short_are_broken(form, mode, options):
    data = encode(picture(40, 50), form, mode, **options)
    for kept in (0, 1, 20, len(data) // 2, len(data) - 100):
        with pytest.raises(ValueError, match="not a whole image"):
            crops.decode(data[:kept])


def test_jpeg_cut_by_a_few_bytes_is_broken_and_extra_bytes_are_not():
    data = encode(picture(40, 50), "JPEG")
    for missing in (1, 2, 3, 10):
        with pytest.raises(ValueError, match="not a whole image"):
            crops.decode(data[:-missing])
    for extra in (b"\0" * 30, b"trailer"):
        np.testing.assert_array_equal(crops.decode(data + extra), crops.decode(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_opencv_never_sees_a_file_without_its_end(form, monkeypatch):
    """Some of its versions fill up what is missing with grey and say nothing."""
    data = encode(picture(40, 50), form)
    grey = np.full((40, 50, 3), 128, np.uint8)
    monkeypatch.setattr(crops.cv2, "imdecode", lambda *_: grey)
    assert crops.decode(data) is grey
    with pytest.raises(ValueError, match="not a whole image"):
        crops.decode(data[:-100])


def test_decode_turns_upright_in_both_decoders():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encode(picture(40, 50), "JPEG", exif=exif)
    assert crops.decode(data).shape == (50, 40, 3)
    assert crops.decode(data + b"trailer").shape == (50, 40, 3)


def test_decode_passes_pixels_through():
    pixels = picture(4, 5)
    assert crops.decode(pixels) is pixels


def test_decode_prints_nothing(capfd):
    for form in ("JPEG", "PNG", "WEBP"):
        with pytest.raises(ValueError, match="not a whole image"):
            crops.decode(encode(picture(40, 50), form)[:200])
    assert capfd.readouterr() == ("", "")


sides = st.integers(1, 400)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=200, deadline=None)
@given(h=sides, w=sides, seed=seeds, low=st.floats(0.01, 1), extent=st.floats(0, 1))
def test_box_lies_inside_with_allowed_area_and_ratio(h, w, seed, low, extent):
    scale = (low, low + extent * (1 - low))
    rng = np.random.default_rng(seed)
    top, left, height, width = crops.draw_box(rng, (h, w), scale=scale, ratio=RATIO)
    assert 0 <= top <= top + height <= h
    assert 0 <= left <= left + width <= w
    fallback = (top, left) == ((h - height) // 2, (w - width) // 2)
    # Rounding moves each side by at most half a pixel.
    low_area = (math.sqrt(scale[0] * h * w * RATIO[0]) - 1) ** 2 / RATIO[0]
    high_ratio = (width - 0.5) / (height + 0.5) <= RATIO[1] + 1e-9
    low_ratio = (width + 0.5) / max(height - 0.5, 1e-9) >= RATIO[0] - 1e-9
    inside = height * width >= low_area / 2 and high_ratio and low_ratio
    assert fallback or inside


@pytest.mark.parametrize("area", [0.0756, 0.0703])
def test_box_sides_are_rounded(area):
    """sqrt(756) = 27.495..., sqrt(703) = 26.51: a square of 27 pixels a side."""
    rng = np.random.default_rng(0)
    drawn = crops.draw_box(rng, (100, 100), scale=(area, area), ratio=(1.0, 1.0))
    assert drawn[2:] == (27, 27)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((30, 1000), (0, 480, 30, 40)),  # too wide: width = h * 4/3
        ((1000, 30), (480, 0, 40, 30)),  # too high: height = w / (3/4)
    ],
)
def test_box_falls_back_to_the_centre(shape, box):
    """Boxes of 90 % of these areas never fit: torchvision's fallback is left."""
    rng = np.random.default_rng(0)
    assert crops.draw_box(rng, shape, scale=(0.9, 1.0), ratio=RATIO) == box


def test_box_falls_back_to_the_whole_image():
    rng = np.random.default_rng(0)
    box = crops.draw_box(rng, (40, 50), scale=(1.2, 1.3), ratio=RATIO)
    assert box == (0, 0, 40, 50)


def test_box_areas_and_ratios_are_distributed_as_asked():
    """Up to half of a square nothing is rejected: uniform area, uniform log ratio."""
    rng = np.random.default_rng(0)
    boxes = [
        crops.draw_box(rng, (1000, 1000), scale=(0.1, 0.5), ratio=RATIO)
        for _ in range(4000)
    ]
    top, left, height, width = np.array(boxes, np.float64).T
    areas = (height * width / 1e6 - 0.1) / 0.4
    ratios = np.log(width / height) / np.log(4 / 3) / 2 + 0.5
    for values in (areas, ratios, top / (1000 - height), left / (1000 - width)):
        gap = np.abs(np.sort(values) - np.linspace(0, 1, 4000)).max()
        assert gap < 1.95 / math.sqrt(4000)  # Kolmogorov-Smirnov at 0.1 %


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_random_resized_crop_is_pillow_on_the_box(interpolation):
    image = picture(60, 80)
    for seed in range(5):
        box = {"scale": (0.2, 1.0), "ratio": RATIO}
        rng = np.random.default_rng(seed)
        ours = crops.random_resized_crop(
            rng, image, size=(24, 40), interpolation=interpolation, **box
        )
        top, left, height, width = crops.draw_box(
            np.random.default_rng(seed), (60, 80), **box
        )
        theirs = Image.fromarray(image).crop((left, top, left + width, top + height))
        method = getattr(Image.Resampling, interpolation.upper())
        np.testing.assert_array_equal(ours, np.asarray(theirs.resize((40, 24), method)))


def test_shrinking_averages():
    """Anti-aliasing: stripes one pixel wide turn grey."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crops.resize_and_center_crop(
        stripes, size=(16, 16), resize=16, interpolation="bicubic"
    )
    assert np.abs(small.astype(int) - 128).max() < 12


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, height=st.integers(1, 40), width=st.integers(1, 40))
def test_center_crop_always_has_the_size(h, w, height, width):
    image = np.zeros((h, w, 3), np.uint8)
    out = crops.resize_and_center_crop(
        image, size=(height, width), resize=20, interpolation="bilinear"
    )
    assert out.shape == (height, width, 3)


def test_center_crop_against_pillow():
    image = picture(60, 90)
    ours = crops.resize_and_center_crop(
        image, size=(24, 24), resize=30, interpolation="bicubic"
    )
    resized = Image.fromarray(image).resize((45, 30), Image.Resampling.BICUBIC)
    # (45 - 24) / 2 = 10.5 rounds to even, as torchvision's CenterCrop does.
    np.testing.assert_array_equal(ours, np.asarray(resized)[3:27, 10:34])


def test_center_crop_leaves_an_image_of_the_size_alone():
    image = picture(32, 48)
    out = crops.resize_and_center_crop(
        image, size=(32, 48), resize=32, interpolation="bicubic"
    )
    np.testing.assert_array_equal(out, image)


def test_flip_is_a_mirror_half_of_the_time():
    image, rng = picture(4, 5), np.random.default_rng(0)
    flips = 0
    for _ in range(400):
        out = crops.random_flip(rng, image)
        flips += np.array_equal(out, image[:, ::-1])
        assert np.array_equal(out, image) or np.array_equal(out, image[:, ::-1])
    assert 160 < flips < 240


@pytest.mark.parametrize("crop", [None, ()])
def test_train_transform_without_crop_and_flip_is_the_center_crop(crop):
    image = picture(60, 90)
    centre = {"size": (24, 32), "resize": 40, "interpolation": "bicubic"}
    out = crops.train_transform(
        np.random.default_rng(0), image, crop=crop, ratio=RATIO, flip=False, **centre
    )
    np.testing.assert_array_equal(out, crops.resize_and_center_crop(image, **centre))
