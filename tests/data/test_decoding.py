"""Decoding: against Pillow, and files that stop before their end."""

import io

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_opencv_never_sees_a_file_without_its_end(form, monkeypatch):
    """Some of its versions fill up what is missing with grey and say nothing."""
    data = encode(picture(40, 50), form)
    grey = np.full((40, 50, 3), 128, np.uint8)
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *_: grey)
    assert decoding.decode(data) is grey
    with pytest.raises(ValueError, match="not a whole image"):
        decoding.decode(data[:-100])


def test_decode_turns_upright_in_both_decoders():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = encode(picture(40, 50), "JPEG", exif=exif)
    assert decoding.decode(data).shape == (50, 40, 3)
    assert decoding.decode(data + b"trailer").shape == (50, 40, 3)


def test_decode_passes_pixels_through():
    pixels = picture(4, 5)
    assert decoding.decode(pixels) is pixels


def test_decode_prints_nothing(capfd):
    for form in ("JPEG", "PNG", "WEBP"):
        with pytest.raises(ValueError, match="not a whole image"):
            decoding.decode(encode(picture(40, 50), form)[:200])
    assert capfd.readouterr() == ("", "")
