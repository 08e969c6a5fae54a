"""Resizes uint8 `[h w 3]`: as Pillow does to the bit, or nearly and several times as fast.

Pillow filters when it shrinks (anti-aliasing): the published torch recipes were trained
with it, and OpenCV's plain kernels give visibly different pixels. Blurred first, as far
as the image shrinks, they come near: `docs/performance.md` has the decibels. (Google's
resize is TensorFlow's: bilinear without filtering, or by area.)
"""

import cv2
import numpy as np
from PIL import Image

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
KERNELS = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
# `config.data.pixels`: "pillow"; "near"; "fast", which decodes JPEGs faster, too.
WAYS = ("pillow", "near", "fast")
FAR = 2.0  # times smaller: what a blur of three pixels is for
LITTLE = 1.6  # times smaller: what passes without one
# Outer weights of the blur: that of an image that shrinks FAR times; found by trying.
WEIGHT = {"bicubic": 0.23, "bilinear": 0.25}


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str, way: str = "pillow"
) -> np.ndarray:
    """Resizes to exactly `size`: `[h w 3] -> [H W 3]`; one that has it stays as it is."""
    if image.shape[:2] == tuple(size):
        return image
    if way == "pillow":
        return by_pillow(image, size, interpolation)
    return nearly(image, size, interpolation, quick=way == "fast")


def by_pillow(image: np.ndarray, size: tuple[int, int], interpolation: str):
    """Resizes by Pillow."""
    # It keeps RGB in four bytes: given so it copies nothing, under Python's lock.
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    shape = image.shape[1], image.shape[0]
    pixels = Image.frombuffer("RGBX", shape, padded, "raw", "RGBX", 0, 1)
    made = pixels.resize((size[1], size[0]), RESAMPLING[interpolation]).tobytes()
    made = np.frombuffer(made, np.uint8).reshape(*size, 4)
    return cv2.cvtColor(made, cv2.COLOR_RGBA2RGB)


def nearly(
    image: np.ndarray, size: tuple[int, int], interpolation: str, quick: bool = False
):
    """Resizes by OpenCV, blurred by three pixels on the sides that shrink.

    Where a side shrinks more than FAR times, by Pillow. quick: linearly, without a blur
    where that is seen least.
    """
    height, width = size
    shrunk = image.shape[0] / height, image.shape[1] / width
    if max(shrunk) > FAR:
        return by_pillow(image, size, interpolation)
    interpolation = "bilinear" if quick else interpolation
    if max(shrunk) > (LITTLE if quick else 1):
        down, across = (blur(s, WEIGHT[interpolation]) for s in shrunk)
        image = cv2.sepFilter2D(image, -1, across, down)
    return cv2.resize(image, (width, height), interpolation=KERNELS[interpolation])


def blur(shrunk: float, weight: float) -> np.ndarray:
    """Weights of three pixels along a side that shrinks so many times: float32 `[3]`."""
    outer = weight * max(0.0, shrunk - 1) / (FAR - 1)
    return np.array([outer, 1 - 2 * outer, outer], np.float32)
