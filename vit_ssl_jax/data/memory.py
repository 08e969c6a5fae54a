"""Small folders stay decoded: images in memory, so that no file is decoded twice."""

import dataclasses
import math
import threading

import numpy as np

from vit_ssl_jax.data import card, decoding, resizing
from vit_ssl_jax.data.source import Source

LOOKED_AT = 50  # images by whose heads the bytes of all are estimated
MARGIN = 1.2  # what is estimated may be so many times less than it turns out


def keep_decoded(source: Source, budget: float, side: int = 0) -> tuple[Source, str]:
    """The source with its images kept once they are decoded: `(source, line to say)`.

    budget: GiB that they may take, 0 for none. Images larger than need be are kept
        shrunk to a short side of `side` pixels, where that is given and they don't fit
        otherwise. A source that doesn't fit, or that has no files, stays as it is, and
        the line is "".
    """
    limit = budget * 2**30
    if not source.files or not limit:
        return source, ""
    sizes = look_at_some(source)
    kept, size = 0, estimate(source, sizes, 0)
    if size > limit and side:
        kept, size = side, estimate(source, sizes, side)
    if size > limit:
        return source, ""
    shrunk = f", shrunk to a short side of {kept} px" if kept else ""
    line = (
        f"data: {len(source):,} images stay in memory once they are decoded, about "
        f"{size / 2**30:.2g} GiB{shrunk} (config.data.cache_gib={budget:g})"
    )
    return dataclasses.replace(
        source, read=reader(source, kept, MARGIN * limit), portable=False
    ), line


def reader(source: Source, side: int, limit: float):
    """Makes `read` of a source that keeps what it has decoded, up to `limit` bytes."""
    kept: dict[int, tuple[np.ndarray, int | np.ndarray]] = {}
    lock, left = threading.Lock(), limit

    def read(i: int):
        nonlocal left
        if i in kept:
            return kept[i]
        image, label = source.read(i)
        pixels = decoding.decode(image, source.alpha, max_pixels=source.max_pixels)
        image = shrink(pixels, side)
        with lock:
            if i not in kept and left >= image.nbytes:
                left -= image.nbytes
                kept[i] = image, label
        return image, label

    return read


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """The image with a short side of `side` pixels, if it is longer: `[h w 3]`."""
    h, w = image.shape[:2]
    if not side or min(h, w) <= side:
        return image
    shape = (round(h * side / min(h, w)), round(w * side / min(h, w)))
    return resizing.resize(image, shape, "bicubic")


def look_at_some(source: Source) -> list[tuple[int, int]]:
    """(height, width) of some images, evenly spread, by their heads."""
    return [one["size"] for one in card.look_at(source, LOOKED_AT) if one]


def estimate(source: Source, sizes: list[tuple[int, int]], side: int) -> float:
    """Bytes of all images decoded, by the sizes of some; `side` as in `shrink`."""
    scales = [min(1.0, side / min(size)) if side else 1.0 for size in sizes]
    each = [3 * h * w * k**2 for (h, w), k in zip(sizes, scales, strict=True)]
    return len(source) * float(np.mean(each)) if each else math.inf
