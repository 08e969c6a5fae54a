"""Sets of permutations that differ from each other as much as they can (numpy)."""

import functools
import itertools
import math

import numpy as np


@functools.cache
def spread_permutations(n, count, *, by):
    """Chooses permutations of `n` things greedily: `-> [count n]` int32, read-only.

    The first is the identity. Each next one is, among those left, the one whose
    Hamming distances to all chosen so far have the largest minimum (`by="minimum"`,
    ties by the larger mean) or the largest mean (`by="mean"`: Noroozi & Favaro, 2016,
    algorithm 1). Remaining ties go to the first in lexicographic order, so the set is a
    function of the arguments. Holds all n! permutations: n up to 9 takes a second.
    Raises ValueError where there are fewer than `count`.
    """
    if not 1 <= count <= math.factorial(n):
        raise ValueError(f"{n} things have {math.factorial(n)} permutations: {count=}")
    flat = itertools.chain.from_iterable(itertools.permutations(range(n)))
    every = np.fromiter(flat, np.uint8, n * math.factorial(n)).reshape(-1, n)
    columns = np.ascontiguousarray(every.T)
    total = np.zeros(len(every), np.int32)
    least = np.full(len(every), n, np.uint8)
    chosen = [0]
    for _ in range(count - 1):
        distance = _hamming(columns, every[chosen[-1]])
        total += distance
        # A permutation that was chosen must not come again, however far the others.
        total[chosen[-1]] = -1
        if by == "minimum":
            np.minimum(least, distance, out=least)
            far = np.flatnonzero(least == least.max())
            chosen.append(int(far[total[far].argmax()]))
        else:
            chosen.append(int(total.argmax()))
    table = every[chosen].astype(np.int32)
    table.flags.writeable = False
    return table


def _hamming(columns, permutation):
    """Places where permutations differ from one: `[n P], [n] -> [P]` uint8."""
    distance = np.zeros(columns.shape[1], np.uint8)
    for column, value in zip(columns, permutation, strict=True):
        distance += column != value
    return distance
