"""Decoding: against Pillow, and files that stop before their end."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from vit_ssl_jax.data import decoding


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
    ours = decoding.decode(data)
    assert (ours.shape, ours.dtype) == ((40, 50, 3), np.uint8)
    assert np.abs(ours - theirs).mean() < 1.5


@pytest.mark.parametrize(("form", "mode", "options"), FORMS)
def test_files_cut_short_are_broken(form, mode, options):
    data = encode(picture(40, 50), form, mode, **options)
    for kept in (0, 1, 20, len(data) // 2, len(data) - 100):
        with pytest.raises(ValueError, match="not a whole image"):
            decoding.decode(data[:kept])


def test_jpeg_cut_by_a_few_bytes_is_broken_and_extra_bytes_are_not():
    data = encode(picture(40, 50), "JPEG")
    for missing in (1, 2, 3, 10):
        with pytest.raises(ValueError, match="not a whole image"):
            decoding.decode(data[:-missing])
    for extra in (b"\0" * 30, b"trailer"):
        np.testing.assert_array_equal(
            decoding.decode(data + extra), decoding.decode(data)
        )


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_opencv_never_sees_a_file_without_its_end(form, monkeypatch):
    """Some of its versions fill up what is missing with grey and say nothing."""
    data = encode(picture(40, 50), form)
    grey = np.full((40, 50, 3), 128, np.uint8)
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: grey)
    assert decoding.decode(data) is grey
    with pytest.raises(ValueError, match="not a whole image"):
        decoding.decode(data[:-100])


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("orientation", range(10))
def test_decode_turns_upright_in_both_decoders(mode, orientation):
    """As Pillow does; 0 and 9 are no orientations."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(40, 50), "JPEG", mode, exif=exif)
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decoding.decode(data), np.asarray(theirs))
    np.testing.assert_array_equal(decoding.decode(data + b"trailer"), theirs)


def test_exif_that_is_none_turns_nothing():
    data = encode(picture(40, 50), "JPEG", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(
        decoding.decode(data), decoding.decode(encode(picture(40, 50), "JPEG"))
    )


def test_a_jpeg_that_is_damaged_inside_is_broken_and_a_harmless_one_is_read(capfd):
    """Where libjpeg fills lost pixels; bytes too many before a marker cost none."""
    data = encode(picture(40, 50), "JPEG", quality=95)
    middle = len(data) // 2
    damaged = [
        data[:middle] + data[middle + 200 :],
        data[:middle] + b"\xff\xd9",
    ]
    for broken in damaged:
        with pytest.raises(ValueError, match="not a whole image: Corrupt JPEG data"):
            decoding.decode(broken)
    longer = data[:-2] + b"abc" + data[-2:]
    np.testing.assert_array_equal(decoding.decode(longer), decoding.decode(data))
    assert capfd.readouterr() == ("", "")


RAMP = np.linspace(0, 65535, 48 * 64).reshape(48, 64)


def save(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        save(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"),
        save(Image.fromarray(RAMP.astype(np.uint16)), "PNG"),
        save(Image.fromarray(RAMP.astype(np.uint16)), "JPEG2000"),
        save(Image.fromarray(np.float32(RAMP / 65535)), "TIFF"),
        save(Image.fromarray(np.float32(RAMP - 1000)), "TIFF"),
        save(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        cv2.imencode(".tif", np.uint16(RAMP))[1].tobytes(),
        cv2.imencode(".tif", np.stack([np.float32(RAMP / 65535)] * 3, -1))[1].tobytes(),
        cv2.imencode(".tif", np.stack([np.uint16(RAMP)] * 3, -1))[1].tobytes(),
    ],
)
def test_many_bits_are_scaled_by_their_range(data):
    pixels = decoding.decode(data)
    assert pixels.shape == (48, 64, 3)
    np.testing.assert_allclose(pixels[..., 0], RAMP / 257, atol=1.5)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_numbers_of_any_kind_become_bytes():
    for numbers, wanted in [
        (np.array([[False, True]]), [[0, 255]]),
        (np.array([[0.0, 0.5, np.nan, 1.0]]), [[0, 128, 0, 255]]),
        (np.array([[-1.0, 0.0, np.inf, 1.0]]), [[0, 128, 255, 255]]),
        (np.array([[-1.5e308, 0.0, 1.5e308]]), [[0, 128, 255]]),
        (np.array([[3, 200]], np.int32), [[3, 200]]),
        (np.array([[0, 256, 65535]], np.int32), [[0, 1, 255]]),
        (np.full((1, 2), np.nan), [[0, 0]]),
        (np.full((1, 2), -7), [[0, 0]]),
    ]:
        np.testing.assert_array_equal(decoding.to_bytes(numbers), wanted)


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("PNG", "P")],
)
def test_alpha_lies_on_white_or_black(form, mode):
    image = Image.fromarray(picture(40, 50)).convert("RGBA")
    image.putalpha(Image.new("L", (50, 40), 0))
    if mode == "P":
        image = Image.new("P", (50, 40), 3)
        image.putpalette([i // 3 for i in range(768)])
        image.info["transparency"] = 3
    else:
        image = image.convert(mode)
    data = save(image, form)
    assert (decoding.decode(data) == 255).all()
    assert (decoding.decode(data, "black") == 0).all()


def test_the_first_of_several_pages():
    pages = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    data = save(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert (decoding.decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_with_a_wrong_checksum_is_broken(mode):
    data = bytearray(encode(picture(40, 50), "PNG", mode))
    data[-20] ^= 1  # in the last part of the pixels
    with pytest.raises(ValueError, match="checksum of its part b'IDAT' is wrong"):
        decoding.decode(bytes(data))


def test_heic_is_named():
    with pytest.raises(ValueError, match="not a whole image: HEIC, which isn't read"):
        decoding.decode(b"\0\0\0\x18ftypheic" + bytes(20))


def test_decode_passes_pixels_through():
    pixels = picture(4, 5)
    assert decoding.decode(pixels) is pixels


def test_decode_prints_nothing(capfd):
    for form in ("JPEG", "PNG", "WEBP"):
        with pytest.raises(ValueError, match="not a whole image"):
            decoding.decode(encode(picture(40, 50), form)[:200])
    profile = encode(picture(40, 50), "PNG", icc_profile=b"no profile")
    for data in (profile, b"II*\0" + bytes(200)):
        with contextlib.suppress(decoding.BrokenImageError):
            decoding.decode(data)
    assert capfd.readouterr() == ("", "")
