"""A whole set in memory, decoded: what devices hold of it (`device_cache`)."""

import concurrent.futures
import dataclasses
import sys
from collections.abc import Iterator

import grain
import numpy as np

from vit_ssl_jax.data import mixture, pipeline, reading, workers
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

AHEAD = 256  # steps whose images are told in advance


@dataclasses.dataclass(frozen=True)
class Whole:
    """All images of a source, of one size.

    image: uint8 `[n h w 3]`. label: int32 `[n]`. stand_in: int32 `[n]`, the number of
    the image itself, or of the next whole one where it is broken. parts: see `Source`.
    """

    image: np.ndarray
    label: np.ndarray
    stand_in: np.ndarray
    parts: tuple[tuple[int, float], ...] = ()


def load(source: Source, max_broken: float, most_bytes: float) -> Whole:
    """Reads and decodes all images of a source.

    max_broken: part of them that may be broken. most_bytes: that they may take. Raises
    UserError where they take more, are of several sizes or too many are broken.
    """
    shape = first_shape(source)
    if (size := len(source) * int(np.prod(shape))) > most_bytes:
        raise UserError(
            f"config.data.device_cache: the {len(source):,} images of {source.name} take "
            f"{size / 2**30:,.2f} GiB of every device, more than half of its memory; set "
            "it to False"
        )
    image, label = np.zeros((len(source), *shape), np.uint8), np.full(len(source), -1)

    def read(i: int) -> bool:
        whole = reading.try_to_read(source, i)
        if whole is None:
            return False
        if whole[0].shape != shape:
            raise UserError(
                "config.data.device_cache: it is for images of one size, and "
                f"{source.where(i)} has {whole[0].shape[1]} x {whole[0].shape[0]} px, "
                f"others {shape[1]} x {shape[0]}; set it to False"
            )
        image[i], label[i] = whole
        return True

    with concurrent.futures.ThreadPoolExecutor(workers.count_cores()) as pool:
        good = np.fromiter(pool.map(read, range(len(source))), bool)
    reading.check_broken(source, max_broken)
    return Whole(image, label.astype(np.int32), next_whole(good), source.parts)


def first_shape(source: Source) -> tuple[int, int, int]:
    """(h, w, 3) of the first image that is whole."""
    for i in range(len(source)):
        if whole := reading.try_to_read(source, i):
            return whole[0].shape
    raise AssertionError("the last broken image raises an error of its own")


def next_whole(good: np.ndarray) -> np.ndarray:
    """For every image the first from it on that is whole: bool `[n] -> int32 [n]`."""
    n, wholes = len(good), np.flatnonzero(good)
    places = np.searchsorted(wholes, np.arange(n)) % len(wholes)
    return wholes[places].astype(np.int32)


def numbers(
    whole: Whole,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """Yields for ever the ids of this process's batches: int32 `[b]`.

    They are those that `pipeline.train_batches` gives for the same arguments.
    """
    local, _ = pipeline.split(batch_size, shard[1])
    order = mixture.order_of(len(whole.image), whole.parts, seed)

    def of_step(step: int) -> np.ndarray:
        first = step * batch_size + shard[0] * local
        return whole.stand_in[[order[first + i] for i in range(local)]]

    steps = grain.MapDataset.range(start_step, sys.maxsize).map(of_step)
    return iter(steps.to_iter_dataset(grain.ReadOptions(1, AHEAD)))
