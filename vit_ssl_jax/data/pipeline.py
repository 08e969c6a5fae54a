"""Batches of pixels by Grain: endless and shuffled to train, once in order to evaluate.

Training needs no saved position. Batch `step` depends on (seed, step) alone: the images
are those at positions step * batch_size + i of the source repeated for ever, shuffled
anew each time round, and an image's augmentation is drawn from (seed, position). So a
run resumes anywhere at once, and any number of processes or threads sees the same.

Threads, not worker processes, do the work: decoding and resizing release the GIL, and
worker processes would need absl's flags parsed, which a notebook doesn't do.
"""

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

import grain
import numpy as np

from vit_ssl_jax.data import crops
from vit_ssl_jax.data.sources import Source
from vit_ssl_jax.errors import UserError

PIECE = 32  # images that one thread prepares at a time
MAX_THREADS = 32
SMALL = 64 * 64 * 3  # numbers in an image
MAX_BROKEN_IN_A_ROW = 100

_first_broken = threading.Lock()


def train_batches(
    source: Source,
    *,
    batch_size: int,
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: bool,
    interpolation: str,
    resize: int,
    seed: int,
    pad: int = 0,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields for ever uint8 image `[b H W 3]`, int32 label `[b]` and id `[b]`.

    batch_size: of all processes together; b = batch_size / number of processes.
    size, crop, ratio, flip, interpolation, resize, pad: see `crops.train_transform`.
    seed, start_step: 0 <= seed < 2**32; the first batch is that of start_step.
    shard: (index, number) of this process; put together in order they are the batch.
    threads, prefetch: see `_batches`.

    `id` is the image's number in the source. A broken image is replaced by the next
    whole one; see `Source.broken`. Raises UserError if batch_size can't be split, for
    both crop and pad, or when 100 in a row (or all) are broken.
    """
    crops.check_pad(pad, crop)
    local, piece = _split(batch_size, shard[1])
    transform = functools.partial(
        crops.train_transform,
        size=size,
        crop=crop,
        ratio=ratio,
        flip=flip,
        interpolation=interpolation,
        resize=resize,
        pad=pad,
    )
    make_row = _row_maker(source, transform, seed)

    def make_piece(number: int) -> dict[str, np.ndarray]:
        step, offset = divmod(number * piece, local)
        first = step * batch_size + shard[0] * local + offset
        return _stack([make_row(first + i) for i in range(piece)])

    pieces = grain.MapDataset.range(start_step * local // piece, sys.maxsize)
    return _batches(source, pieces.map(make_piece), local // piece, threads, prefetch)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    size: tuple[int, int],
    resize: int,
    interpolation: str,
    threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the source once, in order: image, label, id as in `train_batches`, valid.

    valid: bool `[batch_size]`, False at what only fills the last batch (repeats of the
        last row) and at broken images (black, label -1).
    size, resize, interpolation: see `crops.resize_and_center_crop`.

    Raises UserError when all images are broken.
    """
    _, piece = _split(batch_size, 1)

    def make_row(i: int) -> dict:
        whole = _try_to_read(source, i)
        if whole is None:
            image, label = np.zeros((*size, 3), np.uint8), -1
        else:
            image, label = whole
            image = crops.resize_and_center_crop(
                image, size=size, resize=resize, interpolation=interpolation
            )
        row = {"image": image, "label": np.int32(label), "id": np.int32(i)}
        return row | {"valid": whole is not None}

    def make_piece(first: int) -> dict[str, np.ndarray]:
        last = min(first + piece, len(source))
        return _stack([make_row(i) for i in range(first, last)])

    pieces = grain.MapDataset.range(0, len(source), piece).map(make_piece)
    for batch in _batches(source, pieces, batch_size // piece, threads, prefetch):
        yield _fill(batch, batch_size)


def _row_maker(source: Source, transform: Callable, seed: int) -> Callable[[int], dict]:
    """The function position -> the row of a training batch that belongs there."""
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def make_row(position: int) -> dict:
        image, label, i = _read_whole(source, order[position])
        image = transform(np.random.default_rng((seed, position)), image)
        return {"image": image, "label": np.int32(label), "id": np.int32(i)}

    return make_row


def _split(batch_size: int, processes: int) -> tuple[int, int]:
    """Sizes of one process's batch and of a piece, its largest divisor up to PIECE.

    A thread prepares a piece at a time: not an image, because Grain's own work for an
    element is as much as decoding a small image; not a batch, so that all threads work
    on the first one.
    """
    if batch_size % processes:
        raise UserError(
            f"batch_size {batch_size} can't be split evenly among {processes} "
            f"processes: choose a multiple of {processes}."
        )
    local = batch_size // processes
    return local, max(n for n in range(1, PIECE + 1) if local % n == 0)


def _batches(
    source: Source,
    pieces: grain.MapDataset,
    per_batch: int,
    threads: int | None,
    prefetch: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Joins pieces to batches.

    threads: that prepare pieces; None: `_default_threads`.
    prefetch: batches made in advance.
    """
    threads = threads or _default_threads(source)
    options = grain.ReadOptions(threads, max(threads, prefetch * per_batch))
    ready = pieces.to_iter_dataset(options)
    return iter(ready.batch(per_batch, drop_remainder=False, batch_fn=_concatenate))


def _default_threads(source: Source) -> int:
    """One per CPU, up to MAX_THREADS; but one if images are small, by the first three.

    Small images keep Python busier than the decoder: threads only fight for its lock.
    """
    first = [_try_to_read(source, i) for i in range(min(3, len(source)))]
    if all(whole is None or whole[0].size < SMALL for whole in first):
        return 1
    return min(os.cpu_count() or 1, MAX_THREADS)


def _stack(rows: list[dict]) -> dict[str, np.ndarray]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _concatenate(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([p[key] for p in pieces]) for key in pieces[0]}


def _fill(batch: dict[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    """Repeats the last row up to `batch_size`, marked as not valid."""
    missing = batch_size - len(batch["valid"])
    filled = {
        key: np.concatenate([value, np.repeat(value[-1:], missing, axis=0)])
        for key, value in batch.items()
    }
    filled["valid"][batch_size - missing :] = False
    return filled


def _read_whole(source: Source, i: int) -> tuple[np.ndarray, int, int]:
    """Decodes image i or the next that is whole: pixels, label and its number."""
    tries = min(MAX_BROKEN_IN_A_ROW, len(source))
    for candidate in range(i, i + tries):
        candidate %= len(source)
        whole = _try_to_read(source, candidate)
        if whole is not None:
            return *whole, candidate
    raise UserError(
        f"{tries} images in a row can't be decoded in {source.name}, from "
        f"{source.where(i)} on: check that the files are whole."
    )


def _try_to_read(source: Source, i: int) -> tuple[np.ndarray, int] | None:
    """Decodes image i: pixels and label. None, noted in `source.broken`, if broken."""
    try:
        image, label = source.read(i)
        return crops.decode(image), label
    except (OSError, crops.BrokenImageError) as error:
        _note_broken(source, i, error)
        return None


def _note_broken(source: Source, i: int, error: Exception) -> None:
    """Counts a broken image; warns at a source's first, raises when it is the last."""
    with _first_broken:
        first = not source.broken
        source.broken.add(i)
    if first:
        logging.getLogger(__name__).warning(
            "%s is broken and left out (%s). Further broken images of %s are counted, "
            "not reported.",
            source.where(i),
            error,
            source.name,
        )
    if len(source.broken) == len(source):
        raise UserError(f"all {len(source)} images of {source.name} are broken.")
