"""Feeds of features to a probe: from the encoder at each step, or an earlier pass."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.evaluators import features


@dataclasses.dataclass(frozen=True)
class Feed:
    """Training images of a probe, as features."""

    batches: Callable  # step -> endless batches {label [b], ...} from that step on
    read: Callable  # (params, batch) -> {readout: float32 [b F]}, inside the step
    params: Any  # of `read`
    images: int  # in the split


def augmented(config, encoder, params, normalize, batches, images):
    """The `Feed` of augmented images that go through the encoder.

    `batches(step)` is `data.pipeline.train_batches` with `start_step=step` and
    `batch_size=config.batch_size`; `images` their number in the split.
    """
    read_piece = features.make_reader(encoder, normalize, config.readouts)

    def read(params, batch):
        read_one = functools.partial(read_piece, params)
        return in_pieces(read_one, batch["image"], config.accum)

    return Feed(batches, read, params, images)


def in_pieces(read, image, accum):
    """Features of a batch that goes through the encoder in `accum` pieces: `[B ...]`.

    `read(image [b H W 3])` gives them, a tree of `[b ...]`.
    """
    # Piece i holds images i, i + accum, ...: each stays on its device.
    pieces = image.reshape(len(image) // accum, accum, *image.shape[1:])
    by_piece = jax.lax.map(
        lambda piece: read(partition.pin_batch(piece)), pieces.swapaxes(0, 1)
    )
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(len(image), *x.shape[2:]), by_piece
    )


def cached(config, bank, mine=None):
    """The `Feed` of kept features: `bank` is `({readout: [M F]}, labels [M])`.

    Every epoch is a shuffle of its own, and batch `step` depends on (seed, step) alone.
    `mine` are the rows of it that are this process's; None: all.
    """
    kept, labels = bank
    count = len(labels)
    mine = range(config.batch_size) if mine is None else mine

    @functools.lru_cache(2)
    def order(epoch):
        return np.random.default_rng((config.seed, epoch)).permutation(count)

    def rows(number):
        positions = [number * config.batch_size + row for row in mine]
        return np.array([order(p // count)[p % count] for p in positions])

    def batches(start):
        for number in itertools.count(start):
            chosen = rows(number)
            yield {
                "features": {r: kept[r][chosen] for r in config.readouts},
                "label": np.int32(labels[chosen]),
            }

    return Feed(batches, lambda params, batch: batch["features"], (), count)
