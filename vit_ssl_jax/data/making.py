"""Batches of pieces: made by threads of this process, or written by worker processes."""

import itertools
from collections.abc import Callable, Iterator

import grain
import numpy as np

from vit_ssl_jax.data import pool, workers
from vit_ssl_jax.data.source import Source

PIECE = 32  # images that are prepared at a time, by one thread

Arrays = dict[str, np.ndarray]
Write = Callable[[int, Arrays], None]


def rows_of(source: Source, size: tuple[int, int]) -> dict:
    """A batch's arrays by name: shape of a row, and type."""
    several = np.shape(source.no_label)
    return {
        "image": ((*size, 3), "uint8"),
        "label": (several, "uint8" if several else "int32"),
        "id": ((), "int32"),
        "wanted": ((), "int32"),  # the image that should be there
    }


def bytes_of(rows: dict) -> int:
    """Bytes of a row."""
    return sum(int(np.prod(s)) * np.dtype(t).itemsize for s, t in rows.values())


def batches(
    write: Write,
    pieces: grain.MapDataset,
    rows: dict,
    sizes: tuple[int, int],
    hands: workers.Hands,
    prefetch: int,
) -> Iterator[Arrays]:
    """Batches of pieces, in order.

    write: (first, arrays) -> None, writes the rows from `first` on into arrays.
    pieces: of `(first, number of rows)`. rows: see `rows_of`. sizes: images of a batch,
    and of a piece that isn't the last.
    """
    size, piece = sizes
    if hands.processes:
        layout = pool.Layout({name: ((size, *s), t) for name, (s, t) in rows.items()})
        numbers = place(pieces, size // piece)
        how = dict(processes=hands.processes, threads=hands.threads, ahead=prefetch)
        return pool.batches(write, layout, numbers, **how)
    made = pieces.map(lambda numbers: fresh(write, *numbers, rows))
    return by_threads(made, size // piece, hands.threads, prefetch)


def place(pieces: grain.MapDataset, per_batch: int) -> Iterator[list]:
    """The pieces of each batch with their rows: `(first, first row, last row)`."""
    for begin in itertools.count(0, per_batch):
        batch, row = [], 0
        for i in range(begin, min(begin + per_batch, len(pieces))):
            first, count = pieces[i]
            batch.append((first, row, row + count))
            row += count
        if not batch:
            return
        yield batch


def fresh(write: Write, first: int, count: int, rows: dict) -> Arrays:
    """A piece in arrays of its own."""
    out = {name: np.empty((count, *s), t) for name, (s, t) in rows.items()}
    write(first, out)
    return out


def by_threads(
    pieces: grain.MapDataset, per_batch: int, threads: int, prefetch: int
) -> Iterator[Arrays]:
    """Batches of pieces that this process's threads make."""
    options = grain.ReadOptions(threads, max(threads, prefetch * per_batch))
    made = iter(pieces.to_iter_dataset(options))
    while parts := list(itertools.islice(made, per_batch)):
        yield {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
