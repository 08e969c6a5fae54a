"""Segmentation: its head against torch's, its metrics against scikit-learn's counts."""

import jax
import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch.nn import functional

from tests import runs
from vit_ssl_jax.data import maps
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import read_config, segmentation
from vit_ssl_jax.evaluators.dense import training

SPLITS = dict(bank="train", queries="test")


def config(**changes):
    """The recipe's, of three classes, with a short schedule."""
    short = dict(classes=3, steps=10, warmup=3, rate=0.05, batch_size=4)
    settings = runs.load("eval_dense.py", "voc2012").evals.segmentation.to_dict()
    return read_config("segmentation", settings | SPLITS | short | changes)


def batch(step):
    """Features of 2x3 patches and maps of 8x12 pixels, a fifth without a class."""
    rng = np.random.default_rng(step)
    read = rng.integers(0, 3, (4, 8, 12)).astype(np.uint8)
    read[rng.random(read.shape) < 0.2] = maps.IGNORED
    return rng.normal(1.0, 2.0, (4, 2, 3, 5)).astype(np.float32), read


def rate(c, step):
    """mmcv's poly of power 1 with a linear warm-up of ratio 1e-6."""
    regular = c.rate * (1 - step / c.steps)
    k = (1 - step / c.warmup) * (1 - 1e-6)
    return regular * (1 - k) if step < c.warmup else regular


def test_its_head_learns_as_torchs_does():
    c = config()
    state = segmentation.init(c, 5)
    bn, conv = torch.nn.BatchNorm2d(5), torch.nn.Conv2d(5, 3, 1)
    kernel = np.asarray(state.head["kernel"])
    assert 0.002 < kernel.std() < 0.02
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(kernel.T[..., None, None]))
        conv.bias.zero_()
    rule = torch.optim.AdamW(
        [*bn.parameters(), *conv.parameters()], lr=c.rate, weight_decay=c.decay
    )
    learn = jax.jit(lambda state, x, read: segmentation.learn(c, state, x, read))
    for step in range(6):
        features, read = batch(step)
        state, loss = learn(state, features, read)
        rule.param_groups[0]["lr"] = rate(c, step)
        rule.zero_grad()
        logits = conv(bn(torch.tensor(features).permute(0, 3, 1, 2)))
        logits = functional.interpolate(logits, (8, 12), mode="bilinear")
        target = torch.tensor(read.astype(np.int64))
        losses = functional.cross_entropy(
            logits, target, ignore_index=255, reduction="none"
        )
        losses.mean().backward()  # over all pixels, as mmsegmentation's
        rule.step()
        np.testing.assert_allclose(loss, losses.mean().item(), rtol=2e-5)
    close = dict(rtol=1e-3, atol=2e-5)
    with torch.no_grad():
        np.testing.assert_allclose(
            state.head["kernel"], conv.weight[..., 0, 0].T.numpy(), **close
        )
        np.testing.assert_allclose(state.head["bias"], conv.bias.numpy(), **close)
        np.testing.assert_allclose(state.head["scale"], bn.weight.numpy(), **close)
        np.testing.assert_allclose(state.head["shift"], bn.bias.numpy(), **close)
        np.testing.assert_allclose(state.stats["mean"], bn.running_mean, rtol=1e-5)
        np.testing.assert_allclose(state.stats["variance"], bn.running_var, rtol=1e-5)


def test_rates_are_mmcvs():
    c = config(steps=40_000, warmup=1500, rate=1e-3)
    for step in (0, 1, 700, 1499, 1500, 20_000, 39_999):
        found = float(training.make_rate(c)(step))
        np.testing.assert_allclose(found, rate(c, step), rtol=2e-3, atol=1e-12)


def test_pixels_without_a_class_change_nothing():
    logits = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    read = np.zeros((1, 4, 4), np.uint8)
    read[0, :2] = maps.IGNORED
    other = logits.copy()
    other[0, :2] += 100 * np.random.default_rng(1).normal(size=(2, 4, 3))
    found = [segmentation.cross_entropy(x, read) for x in (logits, np.float32(other))]
    assert found[0] == found[1] > 0
    predicted = [(np.full((4, 4), 2, np.uint8), read[0])]
    assert segmentation.count(config(), predicted).sum() == 8


def test_scores_are_those_of_scikit_learns_counts():
    rng = np.random.default_rng(0)
    c, predicted = config(classes=6), []
    for shape in ((9, 7), (12, 30), (5, 5)):
        target = rng.integers(0, 5, shape).astype(np.uint8)  # class 5 is in no map
        said = np.where(rng.random(shape) < 0.6, target, rng.integers(0, 4, shape))
        target[rng.random(shape) < 0.1] = maps.IGNORED
        predicted.append((said.astype(np.uint8), target))
    found = segmentation.count(c, predicted)
    truth = np.concatenate([t.ravel() for _, t in predicted])
    said = np.concatenate([s.ravel() for s, _ in predicted])[truth != 255]
    truth = truth[truth != 255]
    np.testing.assert_array_equal(found, confusion_matrix(truth, said, labels=range(6)))
    parts = [segmentation.count(c, [pair]) for pair in predicted]
    np.testing.assert_array_equal(sum(parts), found)
    ious = [
        ((truth == k) & (said == k)).sum() / ((truth == k) | (said == k)).sum()
        for k in range(5)
    ]
    recalls = [(said[truth == k] == k).mean() for k in range(5)]
    wanted = dict(
        miou=np.mean(ious),
        pixel_accuracy=(truth == said).mean(),
        mean_accuracy=np.mean(recalls),
    )
    assert segmentation.score(found) == pytest.approx(wanted)


def test_maps_without_any_class_are_told():
    with pytest.raises(UserError, match="queries: no pixel of its maps has a class"):
        segmentation.score(np.zeros((3, 3), np.int64))


def test_values_that_cannot_be_are_told():
    for key, value in dict(
        classes=256, layers=(), schedule="step", distortion="blur", most=0.0, stride=0
    ).items():
        with pytest.raises(UserError, match=f"config.evals.segmentation.{key}: "):
            config(**{key: value})
