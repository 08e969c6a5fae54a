"""Random numbers of augmentations: a function of (seed, position), drawn by the piece.

STREAMS names the ways there are, by `config.data.stream`: a run goes on with the one that
it began with. 1 is numpy's default generator, made anew for every image; 2 takes words of
a counter-based generator (Philox: Salmon et al., 2011), those of consecutive positions in
one call.
"""

import math

import numpy as np

WORDS = 64  # of an image; more are drawn where they don't do
SCALE = 2.0**-53  # a word's 53 high bits to a number in [0, 1)


class Draws:
    """Random numbers of one image; the methods of numpy's Generator that are used here."""

    __slots__ = ("_left", "_more")

    def __init__(self, numbers: list[float], more):
        """numbers: uniform in [0, 1), the last first. more: gives others after those."""
        self._left, self._more = numbers, more

    def random(self) -> float:
        """A number in [0, 1)."""
        if not self._left:
            self._left = self._more()
        return self._left.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def integers(self, low, high=None, size=None, endpoint=False):
        """Integers in [low, high), or [0, low); one, or a list of `size`."""
        if high is None:
            low, high = 0, low
        count = high - low + endpoint
        if size is None:
            return low + int(self.random() * count)
        return [low + int(self.random() * count) for _ in range(size)]

    def normal(self, mean: float, deviation: float) -> float:
        """A number of a normal law, by Box and Muller (1958)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.random()))
        return mean + deviation * radius * math.cos(2 * math.pi * self.random())


def by_numpy(seed: int, first: int, count: int) -> list:
    """Generators of the images at `count` positions from `first` on: stream 1."""
    return [np.random.default_rng((seed, first + i)) for i in range(count)]


def by_counter(seed: int, first: int, count: int) -> list:
    """The same in stream 2."""
    # Four words a count; the second word of the counter leaves room for all positions.
    numbers = philox(seed, [first * (WORDS // 4), 0, 0, 0], count * WORDS)
    rows = numbers.reshape(count, WORDS).tolist()
    return [Draws(rows[i], Further(seed, first + i)) for i in range(count)]


class Further:
    """Gives the numbers of a position after its first WORDS, WORDS at a time."""

    __slots__ = ("_place", "_seed", "_turn")

    def __init__(self, seed: int, position: int):
        self._seed, self._place, self._turn = seed, position, 0

    def __call__(self) -> list[float]:
        self._turn += 1
        return philox(self._seed, [0, self._place, self._turn, 0], WORDS).tolist()


def philox(seed: int, counter: list[int], count: int) -> np.ndarray:
    """Numbers in [0, 1) of a key and a counter: float64 `[count]`."""
    words = np.random.Philox(key=[seed, 2], counter=counter).random_raw(count)
    return (words >> np.uint64(11)) * SCALE


STREAMS = {1: by_numpy, 2: by_counter}
