"""Batches of pixels by Grain: endless and shuffled to train, once in order to evaluate.

Training needs no saved position. Batch `step` depends on (seed, step) alone: the images
are those at positions step * batch_size + i of the source repeated for ever, shuffled
anew each time round, and an image's augmentation is drawn from (seed, position). So a
run resumes anywhere at once, and any number of processes, workers or threads sees the
same.

The work is done in pieces, by threads of this process or by worker processes, which hand
their pieces on in shared memory (`workers`).
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence

import grain

from vit_ssl_jax.data import (
    augment,
    crops,
    draws,
    making,
    mixture,
    reading,
    workers,
)
from vit_ssl_jax.data.making import Arrays
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

FILLED = -1  # in the place of an image that a row stands for
MANY = 20_000  # images to evaluate for which worker processes are worth their start


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    rows: Sequence[int] | None = None,
    processes: int | None = None,
    threads: int | None = None,
    prefetch: int = 2,
    stream: int = 2,
    max_broken: float = 1.0,
    **augmentation,
) -> Iterator[Arrays]:
    """Yields for ever uint8 image `[b H W 3]`, label and int32 id `[b]`.

    batch_size: of all processes together; b = batch_size / number of processes.
    seed, start_step: 0 <= seed < 2**32; the first batch is that of start_step.
    shard: (index, number) of this process; put together in order they are the batch.
    rows: of every batch that are made here, sorted, in the place of a shard's.
    processes, threads: that prepare batches; None: see `workers.choose`.
    prefetch: batches made in advance.
    stream, max_broken: see `draws.STREAMS` and `reading.check_broken`.
    augmentation: size, crop and so on, the keywords of `augment.make_augmentation`.

    label: int32 `[b]`, or uint8 `[b C]` of 0 and 1 where an image can have several.
    id: the image's number in the source. A broken image is replaced by the next whole
    one; see `Source.broken`. What is yielded is an iterator with `close()`.

    Raises UserError if batch_size can't be split, for an augmentation that can't be,
    or when more images than that, 100 in a row or all are broken.
    """
    rows = share(batch_size, *shard) if rows is None else rows
    local, piece = len(rows), piece_of(rows)
    if augmentation.get("pixels") == "fast":
        source = dataclasses.replace(source, quick=True)
    write = train_writer(source, seed, stream, augmentation)

    def positions(number: int) -> int:
        """Where the piece of a number, of all that this process makes, begins."""
        step, offset = divmod(number * piece, local)
        return step * batch_size + rows[offset]

    form = making.rows_of(source, augmentation["size"])
    hands = workers.choose(source, processes, threads, local * making.bytes_of(form))
    numbers = grain.MapDataset.range(start_step * local // piece, sys.maxsize)
    pieces = numbers.map(lambda number: (positions(number), piece))
    made = making.batches(write, pieces, form, (local, piece), hands, prefetch)
    return reading.stop_at(source, _noted(source, made), max_broken)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    size: tuple[int, int],
    resize: int,
    interpolation: str,
    squash: bool = False,
    rows: Sequence[int] | None = None,
    processes: int | None = None,
    threads: int | None = None,
    prefetch: int = 2,
) -> Iterator[Arrays]:
    """Yields the source once, in order: image, label, id as in `train_batches`, valid.

    valid: bool `[b]`, False at what only fills the last batch (repeats of the last
        image) and at broken images (black, without a label).
    rows: of every batch that are made here, sorted; None: all, b = batch_size.
    size, resize, interpolation, squash: see `crops.resize_and_center_crop`.

    Raises UserError when all images are broken.
    """
    rows = range(batch_size) if rows is None else rows
    local, piece = len(rows), piece_of(rows)
    transform = functools.partial(
        crops.resize_and_center_crop,
        size=size,
        resize=resize,
        interpolation=interpolation,
        squash=squash,
    )

    if processes is None and len(source) < MANY:
        processes = 0
    form = making.rows_of(source, size) | {"valid": ((), "bool")}
    hands = workers.choose(source, processes, threads, local * making.bytes_of(form))

    def place(number: int) -> tuple[int, int]:
        batch, offset = divmod(number * piece, local)
        return batch * batch_size + rows[offset], piece

    count = -(-len(source) // batch_size) * local // piece
    pieces = grain.MapDataset.range(count).map(place)
    write = _eval_writer(source, transform)
    made = making.batches(write, pieces, form, (local, piece), hands, prefetch)
    return _noted(source, made)


def train_writer(source: Source, seed: int, stream: int, how: dict) -> making.Write:
    """Writes the rows of the positions from one on; `how`: of augmentation."""
    transform = augment.make_augmentation(**how)
    order = mixture.order_of(len(source), source.parts, seed)
    draw = draws.STREAMS[stream]

    def write(first: int, out: Arrays) -> None:
        for row, rng in enumerate(draw(seed, first, len(out["id"]))):
            wanted = order[first + row]
            image, label, i = reading.read_whole(source, wanted)
            out["image"][row] = transform(rng, image)
            out["label"][row], out["id"][row], out["wanted"][row] = label, i, wanted

    return write


def _eval_writer(source: Source, transform: Callable) -> making.Write:
    """Writes the rows of the images from a number on; black where one is broken.

    Rows behind the last image repeat it, not valid and nothing that is wanted.
    """

    def write_image(i: int, row: int, out: Arrays) -> None:
        whole = reading.try_to_read(source, i)
        image, label = whole or (None, source.no_label)
        out["image"][row] = 0 if image is None else transform(image)
        out["label"][row], out["valid"][row] = label, whole is not None
        out["id"][row] = out["wanted"][row] = i

    def write(first: int, out: Arrays) -> None:
        last = len(source) - 1
        for row in range(len(out["id"])):
            if first + row <= last or not row:
                write_image(min(first + row, last), row, out)
            if first + row > last:
                for name in ("image", "label", "id"):
                    out[name][row] = out[name][max(row - 1, 0)]
                out["valid"][row], out["wanted"][row] = False, FILLED

    return write


def split(batch_size: int, processes: int) -> tuple[int, int]:
    """Sizes of one process's batch and of a piece, its largest divisor up to making.PIECE.

    A thread prepares a piece at a time: not an image, because the work around one is as
    much as decoding a small image; not a batch, so that all threads work on the first.
    """
    if batch_size % processes:
        raise UserError(
            f"batch_size {batch_size} can't be split evenly among {processes} "
            f"processes: choose a multiple of {processes}."
        )
    local = batch_size // processes
    return local, piece_of(range(local))


def share(batch_size: int, index: int, count: int) -> range:
    """The rows of a batch that are those of process `index` of `count`."""
    local, _ = split(batch_size, count)
    return range(index * local, (index + 1) * local)


def piece_of(rows: Sequence[int]) -> int:
    """Size of a piece of such rows of a batch: as `split`'s, of neighbours alone."""

    def fits(size: int) -> bool:
        starts = range(0, len(rows), size)
        return all(rows[i + size - 1] - rows[i] == size - 1 for i in starts)

    sizes = range(min(making.PIECE, len(rows)), 0, -1)
    return next(n for n in sizes if len(rows) % n == 0 and fits(n))


def _noted(source: Source, batches: Iterator[Arrays]) -> Iterator[Arrays]:
    """The batches; what a worker couldn't read is read here once more, to be noted."""
    with contextlib.closing(batches):
        for batch in batches:
            wanted, ids = batch.pop("wanted"), batch["id"]
            missing = ~batch["valid"] if "valid" in batch else wanted != ids
            missing &= wanted != FILLED
            for i, last in zip(wanted[missing], ids[missing], strict=True):
                reading.note_between(source, int(i), int(last))
            yield batch
