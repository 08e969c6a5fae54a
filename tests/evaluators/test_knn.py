"""k-NN against scikit-learn with the same weights, on one device and on eight."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import knn


@pytest.fixture(scope="module")
def mesh():
    """Eight devices, two of them tensor-parallel."""
    return partition.make_mesh(dict(data=2, fsdp=2, tensor=2))


@pytest.fixture
def small(monkeypatch):
    """Chunks so small that there are several, the last one partial."""
    monkeypatch.setattr(knn, "ROWS", 96)
    monkeypatch.setattr(knn, "BLOCK", 64)


def features(count, seed):
    """Noisy clusters: `[count 8]`, labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    centres = np.random.default_rng(0).normal(size=(5, 8))
    x = centres[labels] + rng.normal(size=(count, 8))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("standardize", [False, True])
def test_the_vote_is_that_of_scikit_learn(standardize, mesh, small):
    (x, y), (q, labels) = features(400, 1), features(700, 2)
    got = knn.evaluate(
        (x, y),
        (q, labels),
        k=(1, 20, 100),
        temperature=0.07,
        standardize=standardize,
        mesh=mesh,
    )
    if standardize:
        mean, std = x.mean(0), x.std(0)
        x, q = (x - mean) / std, (q - mean) / std
    for k in (1, 20, 100):
        reference = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)
        )
        want = reference.fit(x, y).score(q, labels)
        assert got[f"k{k}_T0.07/top1"] == pytest.approx(want, abs=1.5 / len(q))
        assert want > 0.5
    assert len(got) == 3


def test_the_nearest_are_the_same_bits_on_one_device_and_on_eight(mesh, small):
    (x, _), (q, _) = features(400, 1), features(333, 2)
    one = partition.make_mesh(dict(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    zero, unit = np.zeros(8, np.float32), np.ones(8, np.float32)
    found = [
        knn.find_nearest(x, q, zero, unit, count=30, mesh=each) for each in (one, mesh)
    ]
    np.testing.assert_array_equal(*(ids for _, ids in found))
    np.testing.assert_array_equal(*(similarity for similarity, _ in found))
    x, q = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, q))
    order = np.argsort(-(q @ x.T), axis=1, kind="stable")[:, :30]
    assert (order == found[0][1]).mean() > 0.999


def test_of_equal_neighbours_the_first_row_is_nearest(mesh, small):
    """Also where equal rows lie in different chunks of the bank."""
    x = np.tile(np.eye(4, dtype=np.float32), (50, 1))
    zero, unit = np.zeros(4, np.float32), np.ones(4, np.float32)
    similarity, ids = knn.find_nearest(x, x[:4], zero, unit, count=40, mesh=mesh)
    np.testing.assert_array_equal(similarity, 1.0)
    np.testing.assert_array_equal(ids, 4 * np.arange(40) + np.arange(4)[:, None])


def test_the_published_votes(mesh):
    """Votes [312758, 0, 1386282] and [0, 2044552, 319504]: classes 2 and 1."""
    x = np.float32([(1, 0), (0.9, 0.1), (0, 1), (0.1, 0.9), (0.7, 0.7)])
    y = np.array([0, 0, 1, 1, 2])
    q = np.float32([(0.8, 0.6), (0.3, 0.95)])
    zero, unit = np.zeros(2, np.float32), np.ones(2, np.float32)
    similarity, ids = knn.find_nearest(x, q, zero, unit, count=3, mesh=mesh)
    votes = np.zeros((2, 3))
    np.add.at(votes, (np.arange(2)[:, None], y[ids]), np.exp(similarity / 0.07))
    expected = [(312758, 0, 1386282), (0, 2044552, 319504)]
    np.testing.assert_allclose(votes, expected, rtol=2e-5)
    classes = knn.vote(similarity, y[ids], k=(3, 1), temperature=0.07)
    np.testing.assert_array_equal(classes, [(2, 1), (2, 1)])


def test_votes_add_up_within_a_class():
    """Two of class 5 outweigh one nearer of class 3; a draw goes to the lower class."""
    similarity = np.float32([(0.9, 0.8, 0.8), (0.9, 0.9, 0.1)])
    labels = np.array([(3, 5, 5), (4, 2, 7)])
    classes = knn.vote(similarity, labels, k=(1, 2, 3), temperature=1.0)
    np.testing.assert_array_equal(classes, [(3, 4), (3, 2), (5, 2)])
    sharp = knn.vote(similarity, labels, k=(3,), temperature=1e-3)
    np.testing.assert_array_equal(sharp, [(3, 2)])


def test_any_class_of_a_set_is_right_and_empty_sets_do_not_count(mesh):
    x, y = np.eye(3, dtype=np.float32), np.arange(3)
    sets = np.array([(1, 0, 1), (1, 0, 1), (0, 0, 0)])
    got = knn.evaluate(
        (x, y), (x, sets), k=(1,), temperature=0.07, standardize=False, mesh=mesh
    )
    assert got == {"k1_T0.07/top1": 0.5}


def test_what_cannot_be_judged_is_refused(mesh):
    x, y = features(10, 1)
    settings = dict(temperature=0.07, standardize=False, mesh=mesh)
    with pytest.raises(UserError, match="20 neighbours of 10 bank images"):
        knn.evaluate((x, y), (x, y), k=(1, 20), **settings)
    unlabelled = (x, np.where(np.arange(10) < 3, -1, y))
    with pytest.raises(UserError, match="bank: 3 of 10 images have no label"):
        knn.evaluate(unlabelled, (x, y), k=(1,), **settings)
    with pytest.raises(UserError, match="queries: 3 of 10 images have no label"):
        knn.evaluate((x, y), unlabelled, k=(1,), **settings)
    sets = np.eye(5, dtype=np.int32)[y]
    with pytest.raises(UserError, match="bank: each image has a set of classes"):
        knn.evaluate((x, sets), (x, y), k=(1,), **settings)
