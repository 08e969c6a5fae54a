"""From an image file's bytes to pixels: uint8 `[h w 3]`, by OpenCV or by Pillow."""

import io

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class BrokenImageError(ValueError):
    """The bytes are no image, or stop before its end."""


def decode(image: bytes | np.ndarray) -> np.ndarray:
    """Decodes to RGB, upright: an image file's bytes -> uint8 `[h w 3]`.

    Pixels pass through unchanged. Alpha is dropped, grey repeated, of an animation the
    first frame taken. Raises BrokenImageError, a ValueError.
    """
    if isinstance(image, np.ndarray):
        return image
    if _is_complete(image):
        try:
            pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
        except cv2.error:
            pixels = None
        if pixels is not None:
            return pixels
    return _decode_by_pillow(image)


def _is_complete(image: bytes) -> bool:
    """Whether the bytes are a JPEG, PNG or WebP that clearly has its end.

    OpenCV may fill the missing rows of a file cut short and say nothing. Pillow
    doesn't, and knows every other format, but is slower.
    """
    if image.startswith(b"\xff\xd8"):
        return image.endswith(b"\xff\xd9")
    if image.startswith(b"\x89PNG"):
        return image.endswith(b"IEND\xaeB`\x82")
    webp = image[:4] == b"RIFF" and image[8:12] == b"WEBP"
    return webp and len(image) >= 8 + int.from_bytes(image[4:8], "little")


def _decode_by_pillow(image: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except UnidentifiedImageError:
        raise BrokenImageError("not a whole image: unknown format") from None
    except Exception as error:  # its plugins raise whatever goes wrong in them
        raise BrokenImageError(f"not a whole image: {error}") from error
