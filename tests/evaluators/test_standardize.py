"""Mean and deviation of features that come by in pieces."""

import numpy as np

from vit_ssl_jax.evaluators import features


def test_statistics_do_not_depend_on_the_pieces(monkeypatch):
    x = np.random.default_rng(0).normal(3000.0, [1e-1, 5.0], (1001, 2))
    x = x.astype(np.float32)
    monkeypatch.setattr(features, "CHUNK", 128)
    mean, std = features.statistics(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, x.astype(np.float64).std(0), rtol=1e-5)


def test_both_sets_are_scaled_by_the_bank():
    bank = np.float32([(0, 10), (2, 30)])
    queries = np.float32([(3, 20)])
    a, b = features.standardize(bank, queries)
    np.testing.assert_allclose(a, [(-1, -1), (1, 1)], atol=2e-6)
    np.testing.assert_allclose(b, [(2, 0)], atol=4e-6)
