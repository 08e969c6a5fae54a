"""Decodes an image file's bytes to pixels: uint8 `[h w 3]`.

By libjpeg-turbo (simplejpeg) or OpenCV, which are fast, or else by Pillow.
"""

import functools
import io
import logging
import warnings
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from vit_ssl_jax.data import jpegs, sizes
from vit_ssl_jax.data.sizes import PNG

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Pillow's name no file; what is wrong with one is in the exception.
warnings.filterwarnings("ignore", module=r"PIL\.")

JPEG = b"\xff\xd8"
# What libjpeg says where pixels are as they should be; else they are missing or wrong.
HARMLESS = ("extraneous bytes", "Adobe color transform", "SOS parameters")
ALPHA = {"white": 255, "black": 0}
UNREADABLE = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


class BrokenImageError(ValueError):
    """The bytes are no image, or stop before its end."""


def decode(
    image: bytes | np.ndarray,
    alpha: str = "white",
    *,
    quick: bool = False,
    max_pixels: int = sizes.MAX_PIXELS,
) -> np.ndarray:
    """Decodes to RGB, upright: an image file's bytes -> uint8 `[h w 3]`.

    Pixels pass through unchanged. Grey is repeated; of an animation, or of several
    pages, the first is taken. Numbers of 16 bits and floats are scaled by their range,
    see `to_bytes`. alpha: what lies behind where an image is transparent, "white" or
    "black". quick: of a JPEG, libjpeg's fast inverse DCT and plain upsampling of colour.
    max_pixels: what has more by its header is refused before it is decoded; a JPEG that
    isn't progressive is read at a half, quarter or eighth of its sides where that fits.
    Raises BrokenImageError, a ValueError.
    """
    if isinstance(image, np.ndarray):
        return image
    if image.startswith(JPEG):
        pixels = _decode_jpeg(image, quick, max_pixels)
        if pixels is not None:
            return pixels
    else:
        _check_size(sizes.read(image), max_pixels)
    if _is_plain(image):
        encoded = _without_remarks(image) if image.startswith(PNG) else image
        try:
            pixels = cv2.imdecode(
                np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB
            )
        except cv2.error:
            pixels = None
        if pixels is not None:
            return pixels
    return _decode_by_pillow(image, alpha, max_pixels)


def _check_size(size: tuple[int, int] | None, most: int) -> None:
    """Raises BrokenImageError for more than `most` pixels, by (width, height)."""
    if size and size[0] * size[1] > most:
        raise BrokenImageError(
            f"too large: {size[0]:,} x {size[1]:,} px, and config.data.max_pixels is "
            f"{most:,}"
        )


@functools.cache
def _say_smaller(size: tuple[int, int], factor: int, most: int) -> None:
    """Says once of a size that a JPEG is read at less than that."""
    logging.getLogger(__name__).warning(
        "a JPEG of %d x %d px is read at 1/%d of its sides: config.data.max_pixels is %d",
        *(*size, factor, most),
    )


def _decode_jpeg(image: bytes, quick: bool, most: int) -> np.ndarray | None:
    """A JPEG in grey or colour, upright; None where Pillow is to try.

    Raises BrokenImageError where libjpeg tells that pixels are lost: it would fill them.
    """
    try:
        height, width, kind, _ = simplejpeg.decode_jpeg_header(image)
        factor = jpegs.choose_factor(image, (width, height), most)
        smaller = -(-width // factor), -(-height // factor)
        _check_size(smaller, most)
        if kind not in ("Gray", "YCbCr", "RGB"):
            return None
        how = dict(fastdct=quick, fastupsample=quick)
        if factor > 1:
            _say_smaller((width, height), factor, most)
            how |= dict(zip(("min_width", "min_height"), smaller, strict=True))
        pixels = simplejpeg.decode_jpeg(image, "RGB", **how)
    except BrokenImageError:
        raise
    except ValueError as error:
        told = str(error)
        if "orrupt" in told and not any(text in told for text in HARMLESS):
            raise BrokenImageError(f"not a whole image: {told}") from None
        return None
    return jpegs.turn(pixels, jpegs.find_orientation(image))


def _is_plain(image: bytes) -> bool:
    """Whether the bytes are a PNG or WebP that OpenCV reads as `decode` says.

    It may fill the missing rows of a file cut short and say nothing, and drops alpha.
    Pillow doesn't, and knows every other format, but is slower. Raises
    BrokenImageError for a PNG with a wrong checksum, which either would take.
    """
    if image.startswith(PNG):
        deep_grey = image[24:26] == b"\x10\0"
        whole = image.endswith(b"IEND\xaeB`\x82")
        return not _has_alpha(image) and whole and not deep_grey
    webp = image[:4] == b"RIFF" and image[8:12] == b"WEBP"
    plain = image[12:16] == b"VP8 "  # VP8X and VP8L may have alpha
    return webp and plain and len(image) >= 8 + int.from_bytes(image[4:8], "little")


def _parts(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Parts of a PNG: (kind, first byte, last byte + 1). What is cut short is none."""
    start = len(PNG)
    while start + 12 <= len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if end > len(png):
            return
        yield png[start + 4 : start + 8], start, end
        start = end


def _has_alpha(png: bytes) -> bool:
    """Whether a PNG is transparent anywhere; its checksums are verified on the way."""
    alpha, view = png[25:26] in (b"\4", b"\6"), memoryview(png)
    for kind, start, end in _parts(png):
        told = int.from_bytes(view[end - 4 : end], "big")
        if zlib.crc32(view[start + 4 : end - 4]) != told:
            raise BrokenImageError(
                f"not a whole image: the checksum of its part {kind!r} is wrong"
            )
        alpha |= kind == b"tRNS"
    return alpha


def _without_remarks(png: bytes) -> bytes:
    """A PNG without the parts that pixels don't need, and libpng may complain of."""
    parts = list(_parts(png))
    kept = [part for part in parts if part[0][:1].isupper() or part[0] == b"eXIf"]
    if len(kept) == len(parts):
        return png
    return PNG + b"".join(png[first:last] for _, first, last in kept)


def _decode_by_pillow(image: bytes, alpha: str, most: int) -> np.ndarray:
    if most > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's own bound, the same by default
        Image.MAX_IMAGE_PIXELS = -(-most // 2)
    try:
        with Image.open(io.BytesIO(image)) as opened:
            _check_size(opened.size, most)
            return from_pillow(ImageOps.exif_transpose(opened), alpha)
    except UnidentifiedImageError:
        pixels = _decode_tiff(image)
        if pixels is None:
            kind = UNREADABLE.get(image[8:12]) if image[4:8] == b"ftyp" else None
            text = f"{kind}, which isn't read" if kind else "unknown format"
            raise BrokenImageError(f"not a whole image: {text}") from None
        return pixels
    except BrokenImageError:
        raise
    except Exception as error:  # its plugins raise whatever goes wrong in them
        raise BrokenImageError(f"not a whole image: {error}") from error


def _decode_tiff(image: bytes) -> np.ndarray | None:
    """By OpenCV, what Pillow doesn't know: floats or 16 bits in colour. None if none."""
    if image[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None:
        return None
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return to_rgb(to_bytes(pixels.reshape(*pixels.shape[:2], -1)[..., 0]))
    return to_bytes(np.ascontiguousarray(pixels[..., 2::-1]))


def from_pillow(image: Image.Image, alpha: str = "white") -> np.ndarray:
    """Pixels of a Pillow image of any mode: uint8 `[h w 3]`; see `decode`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return to_rgb(to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        back = Image.new("RGBA", image.size, (ALPHA[alpha],) * 3 + (255,))
        image = Image.alpha_composite(back, image)
    return np.array(image.convert("RGB"))


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey repeated: `[h w]` or `[h w 1]` -> `[h w 3]`."""
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Numbers of any kind as uint8, scaled by their range.

    Those all within 0..255 stay as they are, but floats within 0..1 become 0..255;
    whole numbers within 0..65535 keep their upper byte; all others are scaled from the
    least to the greatest. What is no number counts as the least.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    whole = np.issubdtype(pixels.dtype, np.integer)
    pixels = np.float64(pixels)
    finite = pixels[np.isfinite(pixels)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    pixels = np.nan_to_num(pixels, nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1 and not whole:
        pixels = 255 * pixels
    elif low < 0 or high > 65535 or (high > 255 and not whole):
        pixels = 255 * ((pixels / 2 - low / 2) / max(high / 2 - low / 2, 1e-300))
    elif high > 255:
        pixels = pixels // 256
    return np.uint8(np.round(pixels))
