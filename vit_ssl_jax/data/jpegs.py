"""What a JPEG says before its pixels: how it is turned, how small libjpeg may read it."""

import struct
from collections.abc import Iterator

import numpy as np

from vit_ssl_jax.data import tiffs

EXIF, ORIENTATION = b"Exif\0\0", 0x0112
FACTORS = 2, 4, 8  # by which libjpeg reads the sides smaller


def choose_factor(jpeg: bytes, size: tuple[int, int], most: int) -> int:
    """By which to divide a JPEG's sides so that it has at most `most` pixels.

    1 where none is needed; the last of FACTORS where none is enough. A progressive JPEG
    keeps the coefficients of all its pixels while it is decoded, at any factor: 1.
    """
    width, height = size
    if width * height <= most or is_progressive(jpeg):
        return 1
    for factor in FACTORS:
        if -(-width // factor) * -(-height // factor) <= most:
            return factor
    return FACTORS[-1]


def is_progressive(jpeg: bytes) -> bool:
    """Whether a JPEG's frame is one of several passes."""
    return any(kind in (0xC2, 0xC6, 0xCA, 0xCE) for kind, _ in segments(jpeg))


def segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """A JPEG's segments before its pixels: (kind, place of its 0xFF)."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        kind = jpeg[place + 1]
        if kind in (0xDA, 0xD9):  # pixels, end
            return
        if kind != 0xFF:
            yield kind, place
        place += 1 if kind == 0xFF else 2 + (jpeg[place + 2] << 8 | jpeg[place + 3])


def find_orientation(jpeg: bytes) -> int:
    """How a JPEG's EXIF says that it is to be turned: 1 (upright) to 8."""
    tiff = _find_exif(jpeg)
    try:
        for tag, _, place, order in tiffs.entries(jpeg, tiff) if tiff else ():
            if tag == ORIENTATION:
                return struct.unpack_from(order + "H", jpeg, place)[0]
    except struct.error:  # the table ends too early
        pass
    return 1


def _find_exif(jpeg: bytes) -> int:
    """The first byte of a JPEG's EXIF, among the segments before its pixels; 0: none."""
    for kind, place in segments(jpeg):
        if kind == 0xE1 and jpeg[place + 4 : place + 10] == EXIF:
            return place + 10
    return 0


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels `[h w 3]` as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
