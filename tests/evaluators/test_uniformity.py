"""Alignment and uniformity: closed forms on the sphere, pairs of views, a whole run."""

import numpy as np
import pytest
from scipy.special import hyp0f1

from tests import runs
from vit_ssl_jax import train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import uniformity

SETTINGS = dict(
    every_epochs=0.0,
    split="test",
    pool="mean",
    images=256,
    batch_size=32,
    crop=(0.2, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip=True,
    alpha=2.0,
    t=2.0,
    seed=0,
)


def on_sphere(count, width, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, width))
    return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_equal_views_are_aligned_and_opposite_ones_furthest_apart(alpha):
    x = on_sphere(50, 8)
    assert uniformity.alignment(x, x, alpha) == 0.0
    assert uniformity.alignment(x, -x, alpha) == pytest.approx(2.0**alpha, rel=1e-5)


@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("width", [4, 64])
def test_points_spread_evenly_have_the_known_potential(width, t):
    """`E exp(-t |x - y|^2) = exp(-2t) 0F1(width / 2, t^2)` on the unit sphere."""
    found = uniformity.uniformity(on_sphere(3000, width), t)
    assert found == pytest.approx(-2 * t + np.log(hyp0f1(width / 2, t * t)), abs=0.02)


def test_points_that_coincide_are_the_least_uniform():
    x = on_sphere(1, 16)
    assert uniformity.uniformity(np.repeat(x, 9, 0), 2.0) == pytest.approx(
        0.0, abs=1e-5
    )
    two = np.concatenate([x, -x])
    assert uniformity.uniformity(two, 2.0) == pytest.approx(-8.0, rel=1e-5)


def test_blocks_of_rows_change_nothing(monkeypatch):
    x = on_sphere(100, 8)
    whole = uniformity.uniformity(x, 2.0)
    monkeypatch.setattr(uniformity, "BLOCK", 7)
    assert uniformity.uniformity(x, 2.0) == pytest.approx(whole, rel=1e-6)


def test_an_image_is_paired_with_itself():
    first, second = uniformity.pair(np.array([4, 2, 9, 2, 4, 4, 7]), 10)
    np.testing.assert_array_equal(first, [0, 1])
    np.testing.assert_array_equal(second, [4, 3])
    assert len(uniformity.pair(np.array([4, 2, 9, 2, 4, 4, 7]), 1)[0]) == 1


def test_a_run_without_labels_is_told_both(tmp_path):
    config = runs.small("mae", steps=2)
    config.data.labels = False
    with config.unlocked():
        config.evals = dict(uniformity=SETTINGS)
    train.train(config, tmp_path)
    last = runs.metrics(tmp_path)[-1]
    assert 0.0 < last["eval/uniformity/mean/alignment"] < 4.0
    assert -4.0 < last["eval/uniformity/mean/uniformity"] < 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(batch_size=12), r"12 doesn't divide over 8 devices; try 8"),
        (dict(pool="cls"), r"uniformity\.pool: 'cls' needs config.vit.cls=True"),
        (dict(t=0.0), r"uniformity\.t: 0.0 is not a finite number above 0"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_step(tmp_path, changes, said):
    config = runs.small("mae", steps=2, vit__cls=False)
    with config.unlocked():
        config.evals = dict(uniformity=SETTINGS | changes)
    with pytest.raises(UserError, match=said):
        train.train(config, tmp_path)
