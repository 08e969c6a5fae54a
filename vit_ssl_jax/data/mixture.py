"""Several sets as one, each with a weight: which image a position of training has."""

import dataclasses

import grain
import numpy as np

from vit_ssl_jax.data.source import Source, join
from vit_ssl_jax.errors import UserError

BLOCK = 10_000  # positions in which every set has its share, to one image


def mix(sources: list[Source], weights: list[float]) -> Source:
    """The sources as one; of the images of training each has its weight's share.

    Raises UserError for weights that aren't positive or give no image in BLOCK, and for
    sources with different classes.
    """
    if min(weights) <= 0 or min(shares(weights)) == 0:
        raise UserError(
            f"config.data.mix: weights {', '.join(f'{w:g}' for w in weights)} (the first "
            f"is of config.data.name); each is above 0, and at least 1 / {BLOCK:,} of all"
        )
    cure = (
        "give sets that are labelled alike, or set config.data.labels=False for a method "
        "that needs no labels"
    )
    joined = join(sources, "the sets of config.data.mix", cure)
    parts = tuple(zip(map(len, sources), weights, strict=True))
    return dataclasses.replace(joined, parts=parts)


def shares(weights: list[float]) -> list[int]:
    """How many of BLOCK positions each has; what is left goes to the largest remainders."""
    exact = np.asarray(weights, float) / sum(weights) * BLOCK
    whole = np.floor(exact).astype(int)
    first = np.argsort(whole - exact, kind="stable")[: BLOCK - whole.sum()]
    whole[first] += 1
    return whole.tolist()


class Order:
    """The order of a mixture: position -> number, every set shuffled and repeated.

    Of every BLOCK positions each set has the same ones, told by the seed.
    """

    def __init__(self, parts: tuple[tuple[int, float], ...], seed: int):
        counts = shares([weight for _, weight in parts])
        sets = np.repeat(np.arange(len(parts)), counts)
        self._set = np.random.default_rng(seed).permutation(sets)
        self._rank = np.zeros(BLOCK, int)
        for i, count in enumerate(counts):
            self._rank[self._set == i] = np.arange(count)
        self._counts, self._orders, begin = counts, [], 0
        for i, (length, _) in enumerate(parts):
            numbers = grain.MapDataset.range(begin, begin + length)
            seeded = numbers.seed((seed + i) % 2**32)
            self._orders.append(seeded.shuffle().repeat())
            begin += length

    def __getitem__(self, position: int) -> int:
        block, place = divmod(position, BLOCK)
        which = self._set[place]
        return self._orders[which][int(block * self._counts[which] + self._rank[place])]


def order_of(length: int, parts: tuple[tuple[int, float], ...], seed: int):
    """The order of images: position -> number, shuffled anew each time round.

    parts: of a mixture, `(length, weight)` each.
    """
    if parts:
        return Order(parts, seed)
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat()
