"""Pixels from what a head says of cells in overlapping windows of an image.

All steps from there on are linear and the same for each axis: cells are resized to the
window's pixels, windows added where they lie and divided by their number, and the
image's size resized to the map's (mmsegmentation's `slide_inference`). So they are one
matrix an axis, `[pixels of the map, cells of all windows]`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.data import joint
from vit_ssl_jax.ops import bilinear

STRIP = 256  # rows at a time, that a map of many classes fits into memory
AHEAD = 4  # batches of windows that are gathered before they are judged
MULTIPLE = 128  # columns are filled up to: few widths, few programs


def starts(length, size, stride):
    """First pixels of the windows along a side, the last one flush with its end."""
    count = max(length - size + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - size), 0) for i in range(count)]


def weights(new, length, size, stride, cells):
    """Weights `[new, windows * cells]` float32 of a side.

    new: of the map; length: of the resized image; size, stride: of windows.
    """
    begin, up = starts(length, size, stride), bilinear.matrix(size, cells)
    total = np.zeros((length, len(begin), cells), np.float32)
    times = np.zeros((length, 1, 1), np.float32)
    for i, first in enumerate(begin):
        inside = slice(first, min(first + size, length))
        total[inside, i] += up[: inside.stop - first]
        times[inside] += 1
    return bilinear.matrix(new, length) @ (total / times).reshape(length, -1)


def cut(image, size, stride):
    """All windows of an image, row by row: `[h w 3] -> [n H W 3]`, and how many rows."""
    rows, cols = (
        starts(length, side, stride)
        for length, side in zip(image.shape[:2], size, strict=True)
    )
    windows = [joint.cut(image, y, x, size, joint.FILL) for y in rows for x in cols]
    return np.stack(windows), len(rows)


def mosaic(cells, rows):
    """Cells of all windows side by side: `[n r c C] -> [rows*r, cols*c, C]`."""
    n, r, c, classes = cells.shape
    cells = cells.reshape(rows, n // rows, r, c, classes).transpose(0, 2, 1, 3, 4)
    return cells.reshape(rows * r, n // rows * c, classes)


@functools.lru_cache(1)
def make_chooser(mesh):
    """Makes `choose(mosaic [P Q C], rows [H P], cols [W Q]) -> uint8 [H W]`, numpy.

    The likeliest class of each pixel; rows are parted among all devices.
    """
    whole, parted = partition.replicated(mesh), partition.batch_sharding(mesh)
    strip = partition.fill_ways(STRIP, mesh)

    @functools.partial(jax.jit, out_shardings=whole)
    def compute(logits, rows, cols):
        return bilinear.spread(logits[None], rows, cols)[0].argmax(-1).astype(jnp.uint8)

    def choose(logits, rows, cols):
        logits = partition.put(logits, whole)
        wide = np.pad(cols, ((0, -len(cols) % MULTIPLE), (0, 0)))
        wide, parts = partition.put(wide, whole), []
        for first in range(0, len(rows), strip):
            part = rows[first : first + strip]
            full = np.pad(part, ((0, strip - len(part)), (0, 0)))
            ids = compute(logits, partition.put(full, parted), wide)
            parts.append(jax.device_get(ids)[: len(part), : len(cols)])
        return np.concatenate(parts)

    return choose


def answers(pieces, compute, size):
    """Pairs what `compute` says of each image's windows with what came beside them.

    `pieces` gives `(windows [n H W 3], rest)`, `compute` takes `size` windows at a time,
    of one image or several, and the last ones filled up by zeros.
    """

    def answer(waiting):
        said = in_batches(compute, np.concatenate([w for w, _ in waiting]), size)
        ends = np.cumsum([len(w) for w, _ in waiting])
        parts = np.split(said, ends[:-1])
        yield from zip(parts, (rest for _, rest in waiting), strict=True)

    waiting, count = [], 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece[0])
        if count >= AHEAD * size:
            yield from answer(waiting)
            waiting, count = [], 0
    if waiting:
        yield from answer(waiting)


def in_batches(function, rows, size):
    """Applies `function` to `size` rows at a time, the last ones filled up by zeros."""
    parts = []
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        missing = size - len(part)
        filled = np.pad(part, ((0, missing), *[(0, 0)] * (part.ndim - 1)))
        parts.append(function(filled)[: len(part)])
    return np.concatenate(parts)
