"""Sets of permutations against the published rule's table and a second implementation."""

import itertools

import numpy as np
import pytest

from vit_ssl_jax.ops import permutations


def text(table):
    """Rows as strings of digits."""
    return ["".join(map(str, row)) for row in table]


def pairwise(table):
    """Hamming distances of all pairs."""
    rows, cols = np.triu_indices(len(table), 1)
    return (table[rows] != table[cols]).sum(-1)


# Stated for the greedy mean rule from the identity on, ties to the first.
MEAN = {
    4: ["0123", "1032", "2301", "3210", "0132", "1023"],
    9: ["012345678", "103254786", "230167845", "321078564", "456780123", "547806231"],
}


@pytest.mark.parametrize("n", MEAN)
def test_the_mean_rule_gives_the_stated_set(n):
    table = permutations.spread_permutations(n, 6, by="mean")
    assert text(table) == MEAN[n]
    assert table.dtype == np.int32


@pytest.mark.parametrize(
    ("by", "least", "mean"), [("mean", 2, 8.08), ("minimum", 6, 8.0796)]
)
def test_a_hundred_have_the_stated_distances(by, least, mean):
    distance = pairwise(permutations.spread_permutations(9, 100, by=by))
    assert distance.min() == least
    assert distance.mean() == pytest.approx(mean, abs=5e-5)


def test_a_thousand_are_different_permutations():
    table = permutations.spread_permutations(9, 1000, by="minimum")
    np.testing.assert_array_equal(np.sort(table), np.tile(np.arange(9), (1000, 1)))
    assert pairwise(table).min() >= 5
    # The greedy set only grows: a smaller one is its beginning.
    first = permutations.spread_permutations(9, 100, by="minimum")
    np.testing.assert_array_equal(table[:100], first)


def slow(n, count, by):
    """The rule word for word, on lists."""
    left = list(itertools.permutations(range(n)))
    chosen = [left.pop(0)]
    while len(chosen) < count:

        def merit(candidate):
            d = [sum(a != b for a, b in zip(candidate, c)) for c in chosen]
            return (min(d), sum(d)) if by == "minimum" else sum(d)

        best = max(range(len(left)), key=lambda i: merit(left[i]))
        chosen.append(left.pop(best))
    return np.array(chosen)


@pytest.mark.parametrize("by", ["minimum", "mean"])
@pytest.mark.parametrize(("n", "count"), [(3, 6), (4, 24), (5, 30)])
def test_the_set_is_that_of_the_rule_word_for_word(n, count, by):
    table = permutations.spread_permutations(n, count, by=by)
    np.testing.assert_array_equal(table, slow(n, count, by))


def test_nobody_can_change_a_set_that_others_hold():
    with pytest.raises(ValueError, match="read-only"):
        permutations.spread_permutations(4, 6, by="mean")[0, 0] = 1


@pytest.mark.parametrize("count", [0, 25])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(ValueError, match="24 permutations"):
        permutations.spread_permutations(4, count, by="mean")
