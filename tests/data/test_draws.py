"""Random numbers by position: uniform, the same however they are asked for."""

import numpy as np
import pytest
from scipy import stats

from vit_ssl_jax.data import draws


@pytest.mark.parametrize("stream", draws.STREAMS)
def test_draws_depend_on_seed_and_position_alone(stream):
    draw = draws.STREAMS[stream]
    together = [rng.random() for rng in draw(7, 100, 5)]
    apart = [draw(7, 100 + i, 1)[0].random() for i in range(5)]
    assert together == apart and len(set(together)) == 5
    assert draw(8, 100, 1)[0].random() != together[0]


def test_stream_1_is_numpys_default_generator():
    (rng,) = draws.by_numpy(3, 11, 1)
    assert rng.random() == np.random.default_rng((3, 11)).random()


def test_numbers_go_on_after_the_first_words():
    """And don't repeat: neither within an image nor from one to the next."""
    images = draws.by_counter(0, 0, 3)
    numbers = [rng.random() for rng in images for _ in range(3 * draws.WORDS)]
    assert len(set(numbers)) == len(numbers)


def test_laws_are_those_of_numpys_methods():
    """By Kolmogorov and Smirnov, over the first number of 20,000 images."""
    images = draws.by_counter(1, 0, 20_000)
    assert stats.kstest([r.random() for r in images], "uniform").pvalue > 1e-3
    assert (
        stats.kstest([r.uniform(-1, 3) for r in images], "uniform", (-1, 4))[1] > 1e-3
    )
    assert stats.kstest([r.normal(2, 3) for r in images], "norm", (2, 3))[1] > 1e-3
    counts = np.bincount([r.integers(5) for r in images], minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3 and len(counts) == 5
    counts = np.bincount([r.integers(2, 4, endpoint=True) for r in images], minlength=5)
    assert counts[:2].sum() == 0 and stats.chisquare(counts[2:]).pvalue > 1e-3
    two = [r.integers(3, size=2) for r in images]
    assert stats.chisquare(np.bincount(np.dot(two, [3, 1]))).pvalue > 1e-3
