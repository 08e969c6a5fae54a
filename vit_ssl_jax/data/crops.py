"""Crops of one image: where they lie, uint8 `[h w 3]`. `way`: see `resizing`."""

import math

import cv2
import numpy as np

from vit_ssl_jax.data import resizing

TRIES = 10
LONGEST = 16  # of an image that is to be covered: long side / short side


def pad_and_crop(
    rng: np.random.Generator, image: np.ndarray, *, pad: int
) -> np.ndarray:
    """Moves an image by up to `pad` px, black outside: torchvision's RandomCrop."""
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
    single_draw: bool = False,
    way: str = "pillow",
) -> np.ndarray:
    """Resizes a random box, torchvision's RandomResizedCrop: `[h w 3] -> [H W 3]`.

    single_draw: MAE's box for linear probes instead, see `draw_clamped_box`.
    """
    draw = draw_clamped_box if single_draw else draw_box
    top, left, height, width = draw(rng, image.shape[:2], scale=scale, ratio=ratio)
    box = image[top : top + height, left : left + width]
    return resizing.resize(box, size, interpolation, way)


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
        height, width = _draw_sides(rng, shape, scale, ratio)
        if 0 < width <= w and 0 < height <= h:
            return *_draw_place(rng, shape, (height, width)), height, width
    width, height = w, h
    if w / h < ratio[0]:
        height = round(w / ratio[0])
    elif w / h > ratio[1]:
        width = round(h * ratio[1])
    return (h - height) // 2, (w - width) // 2, height, width


def draw_clamped_box(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Draws MAE's box within (h, w) pixels: (top, left, height, width).

    As `draw_box`, but one draw is all: a side that doesn't fit is the image's (He et
    al., 2022, code of the linear probe).
    """
    sides = _draw_sides(rng, shape, scale, ratio)
    height, width = (min(max(a, 1), b) for a, b in zip(sides, shape, strict=True))
    return *_draw_place(rng, shape, (height, width)), height, width


def _draw_sides(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int]:
    """Height and width of a box; they may be 0 or longer than the image's."""
    area = shape[0] * shape[1] * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    width = round(math.sqrt(area * aspect))
    height = round(math.sqrt(area / aspect))
    return height, width


def _draw_place(
    rng: np.random.Generator, shape: tuple[int, int], box: tuple[int, int]
) -> tuple[int, int]:
    """Top and left of a box of `box` pixels within `shape`, every place as likely."""
    top = int(rng.integers(0, shape[0] - box[0], endpoint=True))
    left = int(rng.integers(0, shape[1] - box[1], endpoint=True))
    return top, left


def random_flip(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Mirrors left and right with probability 1/2: `[h w 3] -> [h w 3]`."""
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def resize_and_center_crop(
    image: np.ndarray,
    *,
    size: tuple[int, int],
    resize: int,
    interpolation: str,
    squash: bool = False,
    way: str = "pillow",
) -> np.ndarray:
    """Resizes, then cuts out the centre: `[h w 3] -> [H W 3]`.

    resize, squash: see `resize_to_cover`.
    An image that has that length and the size already comes back as it is.
    """
    how = dict(resize=resize, interpolation=interpolation, squash=squash, way=way)
    image = resize_to_cover(image, size=size, **how)
    (h, w), (height, width) = image.shape[:2], size
    top, left = round((h - height) / 2), round((w - width) / 2)
    return image[top : top + height, left : left + width]


def random_window(
    rng: np.random.Generator, image: np.ndarray, *, size: tuple[int, int]
) -> np.ndarray:
    """Cuts out a window, every place as likely: `[h w 3] -> [H W 3]`."""
    top, left = _draw_place(rng, image.shape[:2], size)
    return image[top : top + size[0], left : left + size[1]]


def resize_to_cover(
    image: np.ndarray,
    *,
    size: tuple[int, int],
    resize: int,
    interpolation: str,
    squash: bool,
    way: str = "pillow",
) -> np.ndarray:
    """Resizes so that a window of `size` can be cut out: `[h w 3] -> [>= H, >= W, 3]`.

    resize: length of the short side in pixels after resizing. More where that wouldn't
        cover `size`, so nothing is ever padded.
    squash: both sides get that length, whatever the aspect was; else it is kept.

    Of a strip longer than LONGEST times its width, the middle: 20,000 x 8 px would
    become 640,000 x 256.
    """
    image = image if squash else _cut_strip(image, size)
    h, w = image.shape[:2]
    height, width = size
    if squash:
        shape = max(resize, height), max(resize, width)
    else:
        # In whole numbers: int(h * (resize / h)) can be a pixel short of resize.
        num, den = resize, min(h, w)
        for side, wanted in ((h, height), (w, width)):
            if side * num < wanted * den:
                num, den = wanted, side
        shape = h * num // den, w * num // den
    return resizing.resize(image, shape, interpolation, way)


def _cut_strip(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of an image that is longer than a window of `size` can need."""
    short = min(image.shape[:2])
    most = LONGEST * max(1, max(size) / min(size))
    sides = [min(side, round(most * short)) for side in image.shape[:2]]
    top, left = ((a - b) // 2 for a, b in zip(image.shape[:2], sides, strict=True))
    return image[top : top + sides[0], left : left + sides[1]]
