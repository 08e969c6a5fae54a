"""k-NN against scikit-learn with the same weights."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import knn


def features(count, seed):
    """Noisy clusters: `[count 8]`, labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    centres = np.random.default_rng(0).normal(size=(5, 8))
    x = centres[labels] + rng.normal(size=(count, 8))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("standardize", [False, True])
def test_the_vote_is_that_of_scikit_learn(k, standardize):
    (x, y), (q, labels) = features(400, 1), features(700, 2)
    got = knn.evaluate(
        (x, y), (q, labels), k=(k,), temperature=0.07, standardize=standardize
    )
    if standardize:
        mean, std = x.mean(0), x.std(0)
        x, q = (x - mean) / std, (q - mean) / std
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    want = reference.fit(x, y).score(q, labels)
    assert got == {f"k{k}_T0.07/top1": pytest.approx(want, abs=1.5 / len(q))}
    assert want > 0.5


def test_more_neighbours_than_images_is_refused():
    data = features(10, 1)
    with pytest.raises(UserError, match="20 neighbours of 10 bank images"):
        knn.evaluate(data, data, k=(20,), temperature=0.07, standardize=False)
