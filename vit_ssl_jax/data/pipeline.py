"""Batches of pixels by Grain: endless and shuffled to train, once in order to evaluate.

Training needs no saved position. Batch `step` depends on (seed, step) alone: the images
are those at positions step * batch_size + i of the source repeated for ever, shuffled
anew each time round, and an image's augmentation is drawn from (seed, position). So a
run resumes anywhere at once, and any number of processes or threads sees the same.

Threads, not worker processes, do the work: decoding and resizing release the GIL, and
worker processes would need absl's flags parsed, which a notebook doesn't do.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np

from vit_ssl_jax.data import augment, crops, reading
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

PIECE = 32  # images that one thread prepares at a time
MAX_THREADS = 32
SMALL = 64 * 64 * 3  # numbers in an image


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
    prefetch: int = 2,
    **augmentation,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields for ever uint8 image `[b H W 3]`, label and int32 id `[b]`.

    batch_size: of all processes together; b = batch_size / number of processes.
    seed, start_step: 0 <= seed < 2**32; the first batch is that of start_step.
    shard: (index, number) of this process; put together in order they are the batch.
    threads, prefetch: see `_batches`.
    augmentation: size, crop and so on, the keywords of `augment.make_augmentation`.

    label: int32 `[b]`, or uint8 `[b C]` of 0 and 1 where an image can have several.
    id: the image's number in the source. A broken image is replaced by the next whole
    one; see `Source.broken`.

    Raises UserError if batch_size can't be split, for an augmentation that can't be,
    or when 100 images in a row (or all) are broken.
    """
    local, piece = _split(batch_size, shard[1])
    transform = augment.make_augmentation(**augmentation)
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
    squash: bool = False,
    threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the source once, in order: image, label, id as in `train_batches`, valid.

    valid: bool `[batch_size]`, False at what only fills the last batch (repeats of the
        last row) and at broken images (black, without a label).
    size, resize, interpolation, squash: see `crops.resize_and_center_crop`.

    Raises UserError when all images are broken.
    """
    _, piece = _split(batch_size, 1)
    transform = functools.partial(
        crops.resize_and_center_crop,
        size=size,
        resize=resize,
        interpolation=interpolation,
        squash=squash,
    )

    def make_row(i: int) -> dict:
        whole = reading.try_to_read(source, i)
        if whole is None:
            row = _row(np.zeros((*size, 3), np.uint8), source.no_label, i)
        else:
            row = _row(transform(whole[0]), whole[1], i)
        return row | {"valid": whole is not None}

    def make_piece(first: int) -> dict[str, np.ndarray]:
        last = min(first + piece, len(source))
        return _stack([make_row(i) for i in range(first, last)])

    pieces = grain.MapDataset.range(0, len(source), piece).map(make_piece)
    for batch in _batches(source, pieces, batch_size // piece, threads, prefetch):
        yield _fill(batch, batch_size)


def _row_maker(source: Source, transform: Callable, seed: int) -> Callable[[int], dict]:
    """Makes the function position -> the row of a training batch that belongs there."""
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def make_row(position: int) -> dict:
        image, label, i = reading.read_whole(source, order[position])
        image = transform(np.random.default_rng((seed, position)), image)
        return _row(image, label, i)

    return make_row


def _row(image: np.ndarray, label: int | np.ndarray, i: int) -> dict:
    """Row of a batch: an int label becomes int32, an array stays what it is."""
    label = label if isinstance(label, np.ndarray) else np.int32(label)
    return {"image": image, "label": label, "id": np.int32(i)}


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
    first = [reading.try_to_read(source, i) for i in range(min(3, len(source)))]
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
