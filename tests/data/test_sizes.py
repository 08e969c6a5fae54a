"""Images that are too large are refused by their headers, or read smaller."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import decoding, sizes

WIDTH, HEIGHT = 61, 40
FORMS = [
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),  # the extended form
    ("TIFF", {}),
    ("BMP", {}),
    ("GIF", {}),
    ("JPEG", {"progressive": True}),
]


def encode(form, width=WIDTH, height=HEIGHT, **options):
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_an_image_of_more_pixels_is_refused_and_one_of_as_many_is_not(form, options):
    image = encode(form, **options)
    shape = decoding.decode(image, max_pixels=WIDTH * HEIGHT).shape
    assert shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(decoding.BrokenImageError, match="61 x 40 px, and config.data"):
        decoding.decode(image, max_pixels=WIDTH * HEIGHT - 1)


@pytest.mark.parametrize(("form", "options"), FORMS[:5])
def test_the_header_is_read_as_pillow_reads_it(form, options):
    image = encode(form, **options)
    assert sizes.read(image) == Image.open(io.BytesIO(image)).size


@pytest.mark.parametrize(("form", "options"), FORMS[:5])
def test_a_header_that_is_cut_short_says_no_size(form, options):
    image = encode(form, **options)
    for kept in range(30):
        assert sizes.read(image[:kept]) in (None, (WIDTH, HEIGHT))


def test_a_bomb_is_refused_before_it_is_unpacked():
    header = struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0)
    bomb = sizes.PNG + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)
    begun = time.process_time()
    with pytest.raises(
        decoding.BrokenImageError, match=r"32,000 x 32,000 px.*178,956,970"
    ):
        decoding.decode(bomb)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("divisor", "factor"), [(2, 2), (4, 2), (5, 4), (17, 8), (60, 8)]
)
def test_a_large_jpeg_is_read_smaller_as_pillow_reads_it(divisor, factor, caplog):
    width, height = 640 + divisor, 480
    image = encode("JPEG", width, height, quality=95)
    most = -(-width // factor) * -(-height // factor) if divisor == 60 else 0
    ours = decoding.decode(image, max_pixels=most or width * height // divisor + 900)
    smaller = Image.open(io.BytesIO(image))
    smaller.draft("RGB", (width // factor, height // factor))
    assert smaller.size == (-(-width // factor), -(-height // factor))
    theirs = np.asarray(smaller, np.int32)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 1.5
    assert (
        f"JPEG of {width} x {height} px is read at 1/{factor} of its sides"
        in caplog.text
    )


def test_a_jpeg_too_large_at_an_eighth_is_refused():
    with pytest.raises(decoding.BrokenImageError, match="80 x 60 px"):
        decoding.decode(encode("JPEG", 640, 480), max_pixels=80 * 60 - 1)
