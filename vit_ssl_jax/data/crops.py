"""What happens to one image on the host: decode, crop, resize, flip; uint8 `[h w 3]`.

Resizing is Pillow's, which filters when it shrinks (anti-aliasing): the published
recipes were trained with it, and other kernels give visibly different pixels.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vit_ssl_jax.errors import UserError

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
TRIES = 10

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


def train_transform(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: bool,
    interpolation: str,
    resize: int,
    pad: int = 0,
) -> np.ndarray:
    """Augments for training: uint8 `[h w 3] -> [H W 3]` with `(H, W) = size`.

    crop: the range of the random crop's area as part of the image's; None or ():
        no random crop but `resize_and_center_crop`, then `pad_and_crop` by `pad` px.
    ratio: the range of the random crop's width / height.
    """
    if crop:
        image = random_resized_crop(
            rng, image, size=size, scale=crop, ratio=ratio, interpolation=interpolation
        )
    else:
        image = resize_and_center_crop(
            image, size=size, resize=resize, interpolation=interpolation
        )
        image = pad_and_crop(rng, image, pad=pad)
    return random_flip(rng, image) if flip else image


def check_pad(pad: int, crop: tuple[float, float] | None) -> None:
    """Raises UserError for a padded random crop of another size than the image's."""
    if crop and pad:
        raise UserError(
            f"config.data.pad: {pad} pixels around the image are for a crop of its size, "
            f"not for one of config.data.crop={tuple(crop)}; set pad=0 or crop=()"
        )


def pad_and_crop(
    rng: np.random.Generator, image: np.ndarray, *, pad: int
) -> np.ndarray:
    """Moves by up to `pad` px, black outside: torchvision's RandomCrop(padding=pad)."""
    if not pad:
        return image
    h, w = image.shape[:2]
    top, left = rng.integers(0, 2 * pad, 2, endpoint=True)
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return padded[top : top + h, left : left + w]


def random_resized_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: str,
) -> np.ndarray:
    """Resizes a random box, torchvision's RandomResizedCrop: `[h w 3] -> [H W 3]`."""
    top, left, height, width = draw_box(rng, image.shape[:2], scale=scale, ratio=ratio)
    box = image[top : top + height, left : left + width]
    return _resize(box, size, interpolation)


def draw_box(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draws torchvision's box within (h, w) pixels: (top, left, height, width).

    Area uniform in `scale` (of the image's), log of width / height uniform in log
    `ratio`. After ten boxes that don't fit: the largest centred one of allowed ratio.
    """
    h, w = shape
    for _ in range(TRIES):
        area = h * w * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width = round(math.sqrt(area * aspect))
        height = round(math.sqrt(area / aspect))
        if 0 < width <= w and 0 < height <= h:
            top = int(rng.integers(0, h - height, endpoint=True))
            left = int(rng.integers(0, w - width, endpoint=True))
            return top, left, height, width
    width, height = w, h
    if w / h < ratio[0]:
        height = round(w / ratio[0])
    elif w / h > ratio[1]:
        width = round(h * ratio[1])
    return (h - height) // 2, (w - width) // 2, height, width


def random_flip(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Mirrors left and right with probability 1/2: `[h w 3] -> [h w 3]`."""
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def resize_and_center_crop(
    image: np.ndarray, *, size: tuple[int, int], resize: int, interpolation: str
) -> np.ndarray:
    """Resizes keeping the aspect, then cuts out the centre: `[h w 3] -> [H W 3]`.

    resize: length of the short side in pixels after resizing. More where that wouldn't
        cover `size`, so nothing is ever padded.
    An image that has that length and the size already comes back as it is.
    """
    h, w = image.shape[:2]
    height, width = size
    factor = max(resize / min(h, w), height / h, width / w)
    # At least `size`, whatever the rounding of h * factor did.
    h, w = max(int(h * factor), height), max(int(w * factor), width)
    image = _resize(image, (h, w), interpolation)
    top, left = round((h - height) / 2), round((w - width) / 2)
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resizes to exactly `size` by Pillow: `[h w 3] -> [H W 3]`."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize((width, height), RESAMPLING[interpolation]))
