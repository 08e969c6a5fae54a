"""Crops: against Pillow, and the closed forms of torchvision's and of MAE's box."""

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


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((100, 100), (80, 80)),  # fits: sqrt(0.64 * 100 * 100)
        (
            (30, 1000),
            (30, 139),
        ),  # sqrt(0.64 * 30 * 1000) = 138.6: height is the image's
        ((1000, 30), (139, 30)),
    ],
)
def test_clamped_box_has_the_sides_drawn_or_those_of_the_image(shape, box):
    """MAE's crop neither draws again nor keeps the ratio."""
    rng = np.random.default_rng(0)
    fixed = {"scale": (0.64, 0.64), "ratio": (1.0, 1.0)}
    drawn = [crops.draw_clamped_box(rng, shape, **fixed) for _ in range(4000)]
    tops, lefts, *sides = np.transpose(drawn)
    assert (np.transpose(sides) == box).all()
    for starts, room in ((tops, shape[0] - box[0]), (lefts, shape[1] - box[1])):
        assert (starts.min(), starts.max()) == (0, room)  # both ends turn up


@settings(max_examples=200, deadline=None)
@given(h=sides, w=sides, seed=seeds)
def test_clamped_box_is_torchvisions_where_its_first_draw_fits(h, w, seed):
    numbers = {"scale": (0.08, 1.0), "ratio": RATIO}
    rng, again = np.random.default_rng(seed), np.random.default_rng(seed)
    top, left, height, width = crops.draw_clamped_box(rng, (h, w), **numbers)
    assert 0 <= top <= top + height <= h and 0 <= left <= left + width <= w
    assert height > 0 and width > 0
    area = h * w * again.uniform(0.08, 1.0)
    aspect = math.exp(again.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    free = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    assert (height, width) == (min(max(free[0], 1), h), min(max(free[1], 1), w))
    if 0 < free[0] <= h and 0 < free[1] <= w:
        theirs = crops.draw_box(np.random.default_rng(seed), (h, w), **numbers)
        assert (top, left, height, width) == theirs


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("single_draw", [False, True])
def test_random_resized_crop_is_pillow_on_the_box(interpolation, single_draw):
    image = picture(60, 80)
    draw = crops.draw_clamped_box if single_draw else crops.draw_box
    how = {"interpolation": interpolation, "single_draw": single_draw}
    for seed in range(8):
        box = {"scale": (0.2, 1.0), "ratio": RATIO}
        rng = np.random.default_rng(seed)
        ours = crops.random_resized_crop(rng, image, size=(24, 40), **how, **box)
        top, left, height, width = draw(np.random.default_rng(seed), (60, 80), **box)
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


def test_squash_ignores_the_aspect():
    image = picture(60, 90)
    how = {"interpolation": "bilinear", "squash": True}
    ours = crops.resize_and_center_crop(image, size=(24, 24), resize=24, **how)
    theirs = Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(ours, np.asarray(theirs))
    ours = crops.resize_and_center_crop(image, size=(24, 20), resize=30, **how)
    theirs = Image.fromarray(image).resize((30, 30), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(ours, np.asarray(theirs)[3:27, 5:25])


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, resize=st.integers(1, 60), squash=st.booleans())
def test_resize_to_cover_leaves_room_for_the_window(h, w, resize, squash):
    image = np.zeros((h, w, 3), np.uint8)
    out = crops.resize_to_cover(
        image, size=(20, 30), resize=resize, interpolation="bilinear", squash=squash
    )
    assert out.shape[0] >= 20 and out.shape[1] >= 30
    if resize >= 30:
        assert min(out.shape[:2]) == resize
        assert not squash or out.shape[:2] == (resize, resize)


@pytest.mark.parametrize(
    ("shape", "resize", "wanted"),
    [
        ((374, 500), 256, (256, 342)),  # 374 * (256 / 374) is 255.99...
        ((158, 343), 47, (47, 102)),
        ((500, 374), 256, (342, 256)),
        ((40, 90), 20, (30, 67)),  # the window is the larger wish
    ],
)
def test_the_short_side_is_what_was_asked_for(shape, resize, wanted):
    out = crops.resize_to_cover(
        np.zeros((*shape, 3), np.uint8),
        size=(30, 40),
        resize=resize,
        interpolation="bilinear",
        squash=False,
    )
    assert out.shape[:2] == wanted


def test_random_window_finds_every_place_as_often():
    image, rng = picture(7, 6), np.random.default_rng(0)
    places = [(top, left) for top in range(4) for left in range(2)]
    windows = {image[i : i + 4, j : j + 5].tobytes(): (i, j) for i, j in places}
    found = dict.fromkeys(places, 0)
    for _ in range(800):
        found[windows[crops.random_window(rng, image, size=(4, 5)).tobytes()]] += 1
    assert 65 < min(found.values()) and max(found.values()) < 135


def test_flip_is_a_mirror_half_of_the_time():
    image, rng = picture(4, 5), np.random.default_rng(0)
    flips = 0
    for _ in range(400):
        out = crops.random_flip(rng, image)
        flips += np.array_equal(out, image[:, ::-1])
        assert np.array_equal(out, image) or np.array_equal(out, image[:, ::-1])
    assert 160 < flips < 240


@pytest.mark.parametrize("shape", [(8, 20_000), (20_000, 8)])
def test_a_strip_costs_no_gigabyte(shape):
    """At 256 px it would have 164 million pixels; only its middle is resized."""
    strip = np.zeros((*shape, 3), np.uint8)
    along = np.linspace(0, 255, max(shape)).astype(np.uint8)
    strip[:] = along.reshape(20_000 if shape[0] > 8 else 1, -1, 1)
    settings = dict(size=(224, 224), resize=256, interpolation="bicubic")
    covered = crops.resize_to_cover(strip, squash=False, **settings)
    assert covered.nbytes < 16e6
    middle = crops.resize_and_center_crop(strip, **settings)
    assert middle.shape == (224, 224, 3)
    assert abs(int(middle[112, 112, 0]) - 127) <= 1
