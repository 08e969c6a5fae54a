"""The linear probe on data where the answer is known."""

import numpy as np

from vit_ssl_jax.evaluators import linear


def test_separable_classes_are_separated_whatever_the_scale():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    x = np.eye(3)[labels] * [1.0, 1e-3, 1e3] + [0.0, 5.0, -7.0]
    x = (x + 1e-5 * rng.normal(size=x.shape)).astype(np.float32)
    bank, queries = (x[:200], labels[:200]), (x[200:], labels[200:])
    assert linear.evaluate(bank, queries, c=1.0, iterations=100) == {"C1/top1": 1.0}


def test_noise_is_at_chance():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(2000, 4)), rng.integers(0, 4, 2000)
    bank, queries = (x[:1000], labels[:1000]), (x[1000:], labels[1000:])
    top1 = linear.evaluate(bank, queries, c=1.0, iterations=100)["C1/top1"]
    assert abs(top1 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)
