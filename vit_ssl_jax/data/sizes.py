"""Sizes of images as their files' headers give them, before anything is decoded."""

import struct

from PIL import Image

from vit_ssl_jax.data import tiffs

MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # of an image; Pillow's bound
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = b"II*\0", b"MM\0*"
SIDES = 0x0100, 0x0101  # TIFF's tags of width and height


def read(image: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG, WebP or TIFF; None for other formats, or a broken header."""
    try:
        if image.startswith(PNG):
            return struct.unpack_from(">II", image, 16)
        if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
            return _of_webp(image)
        if image[:4] in TIFF:
            return _of_tiff(image)
    except struct.error:  # it ends too early
        pass
    return None


def _of_webp(image: bytes) -> tuple[int, int] | None:
    """Lossy, lossless and extended WebP."""
    form = image[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", image, 26)
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", image, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8X":
        wide, upper, high, upmost = struct.unpack_from("<HBHB", image, 24)
        return 1 + wide + (upper << 16), 1 + high + (upmost << 16)
    return None


def _of_tiff(image: bytes) -> tuple[int, int] | None:
    """The first page of a TIFF."""
    found = {}
    for tag, kind, place, order in tiffs.entries(image):
        if tag in SIDES:
            form = order + ("H" if kind == 3 else "I")
            (found[tag],) = struct.unpack_from(form, image, place)
    return tuple(found[tag] for tag in SIDES) if len(found) == len(SIDES) else None
