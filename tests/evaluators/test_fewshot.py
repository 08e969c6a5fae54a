"""Few-shot least squares: a worked example, scikit-learn, the draw."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import fewshot


def features(count, seed, classes=4):
    """Noisy clusters of unlike scales: `[count 6]`, labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    centres = np.random.default_rng(0).normal(size=(classes, 6))
    x = centres[labels] + 0.8 * rng.normal(size=(count, 6))
    return np.float32(x * [1, 10, 0.1, 1, 1, 1] + 5), labels


@pytest.mark.parametrize("zeros", [0, 4])
def test_the_worked_example(zeros):
    """Scores (8.5089e-4, -8.5089e-4); with features of zeros by the other system."""
    x = np.pad([(1, 0), (0.9, 0.2), (0, 1), (0.1, 0.8)], ((0, 0), (0, zeros)))
    query = np.pad([(0.6, 0.5)], ((0, 0), (0, zeros)))
    scores = fewshot.score(x, np.array([0, 0, 1, 1]), query, 2, ridge=1024.0)
    np.testing.assert_allclose(scores, [(8.5089e-4, -8.5089e-4)], rtol=1e-4)


def test_it_is_scikit_learns_ridge_on_standardised_shots():
    (x, y), (q, labels) = features(400, 1), features(300, 2)
    got = fewshot.evaluate((x, y), (q, labels), shots=(1, 10), seeds=(0, 1), ridge=1024)
    for shots in (1, 10):
        found = []
        for seed in (0, 1):
            rows = fewshot.draw(y, 4, shots, seed)
            mean, std = x[rows].mean(0), x[rows].std(0) + 1e-5
            bank, queries = (
                np.pad((a - mean) / std, ((0, 0), (0, 1)), constant_values=100)
                for a in (x[rows], q)
            )
            targets = np.where(y[rows][:, None] == np.arange(4), 1.0, -1.0)
            ridge = Ridge(1024, fit_intercept=False).fit(bank, targets)
            found.append((ridge.predict(queries).argmax(1) == labels).mean())
        name = f"shots{shots}_l1024"
        assert got[f"{name}/top1"] == pytest.approx(np.mean(found), abs=0.5 / 300)
        deviation = abs(found[0] - found[1]) / np.sqrt(2)
        assert got[f"{name}/std"] == pytest.approx(deviation, abs=0.5 / 300)
    assert got["shots10_l1024/top1"] > got["shots1_l1024/top1"] > 0.3
    assert got["shots1_l1024/std"] > 0


def test_a_draw_has_so_many_of_each_class_and_fewer_are_among_more():
    _, y = features(200, 3)
    five, ten = (fewshot.draw(y, 4, shots, seed=7) for shots in (5, 10))
    assert set(five) < set(ten)
    for rows, shots in ((five, 5), (ten, 10)):
        assert len(set(rows)) == 4 * shots
        np.testing.assert_array_equal(np.bincount(y[rows]), [shots] * 4)
    assert set(five) != set(fewshot.draw(y, 4, 5, seed=8))
    np.testing.assert_array_equal(five, fewshot.draw(y, 4, 5, seed=7))


def test_draws_are_uniform():
    """Every image of a class of 10 comes in 3 of 10 draws of 3."""
    y = np.arange(20) % 2
    times = np.zeros(20)
    for seed in range(2000):
        times[fewshot.draw(y, 2, 3, seed)] += 1
    assert np.abs(times / 2000 - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_a_single_seed_has_no_deviation():
    data = features(40, 1)
    got = fewshot.evaluate(data, data, shots=(5,), seeds=(0,), ridge=1024)
    assert list(got) == ["shots5_l1024/top1"]


def test_what_cannot_be_drawn_is_refused_by_class():
    x, y = features(40, 1)
    keep = (y != 2) | (np.cumsum(y == 2) <= 3)
    settings = dict(shots=(1, 5), seeds=(0,), ridge=1024)
    with pytest.raises(UserError, match=r"5 images of each class.*: 2 \(3\); name"):
        fewshot.evaluate((x[keep], y[keep]), (x, y), **settings)
    with pytest.raises(UserError, match=r"fewer \(how many\): 2 \(0\); name"):
        fewshot.evaluate((x[y != 2], y[y != 2]), (x, y), **settings)
    with pytest.raises(UserError, match="bank: 40 of 40 images have no label"):
        fewshot.evaluate((x, np.full(40, -1)), (x, y), **settings)
    with pytest.raises(UserError, match="queries: 40 of 40 images have no label"):
        fewshot.evaluate((x, y), (x, np.full(40, -1)), **settings)
