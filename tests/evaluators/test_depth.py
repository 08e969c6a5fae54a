"""Depth: its head, losses and errors against torch's and numpy's."""

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional

from tests import runs
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import depth, read_config
from vit_ssl_jax.evaluators.dense import depth_loss, training

SPLITS = dict(bank="train", queries="test")


def config(**changes):
    """The recipe's with a short schedule."""
    short = dict(steps=10, warmup=3, warm=2, rate=0.01, batch_size=4, bins=16)
    settings = runs.load("eval_dense.py", "nyu").evals.depth.to_dict()
    return read_config("depth", settings | SPLITS | short | changes)


def batch(step):
    """Features of 2x3 patches and depths of 24x36 pixels, some not measured."""
    rng = np.random.default_rng(step)
    metres = rng.uniform(0.5, 9.0, (4, 24, 36)).astype(np.float32)
    metres[rng.random(metres.shape) < 0.2] = 0.0
    return rng.normal(0.0, 2.0, (4, 2, 3, 5)).astype(np.float32), metres


def torch_depths(c, conv, features):
    """The released head: tokens resized first, then the layer; `[B H W]`."""
    x = torch.tensor(features).permute(0, 3, 1, 2)
    x = functional.interpolate(x, scale_factor=4, mode="bilinear")
    logits = torch.relu(conv(x)) + 0.1
    parts = logits / logits.sum(1, keepdim=True)
    bins = torch.linspace(c.min_depth, c.max_depth, c.bins)
    return torch.einsum("bkhw,k->bhw", parts, bins)


def torch_losses(said, metres, warm):
    """SigLoss on all measured pixels, and differences two pixels on at four scales."""
    known = metres > 0
    g = torch.log(said[known] + 0.001) - torch.log(metres[known] + 0.001)
    inside = 0.15 * g.mean() ** 2 + (0 if warm else torch.var(g))
    gradient = 0
    for scale in (1, 2, 4, 6):
        a, b = said[:, ::scale, ::scale], metres[:, ::scale, ::scale]
        mask = (b > 0).float()
        ratio = (torch.log(a + 0.001) - torch.log(b + 0.001)) * mask
        v = (ratio[:, :-2] - ratio[:, 2:]).abs() * mask[:, :-2] * mask[:, 2:]
        h = (ratio[..., :-2] - ratio[..., 2:]).abs() * mask[..., :-2] * mask[..., 2:]
        gradient += (v.sum() + h.sum()) / mask.sum()
    return torch.sqrt(inside), gradient


def test_its_head_learns_as_torchs_does():
    c = config(clip=0.1)
    state, conv = depth.init(c, 5), torch.nn.Conv2d(5, 16, 1)
    kernel = np.asarray(state.head["kernel"])
    assert 0.3 < np.abs(kernel).max() < 5**-0.5 and abs(kernel.mean()) < 0.1
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(kernel.T[..., None, None]))
        conv.bias.copy_(torch.tensor(np.asarray(state.head["bias"])))
    rule = torch.optim.AdamW(conv.parameters(), lr=1.0, weight_decay=c.decay)
    learn = jax.jit(lambda state, x, metres: depth.learn(c, state, x, metres))
    for step in range(6):
        features, metres = batch(step)
        state, loss = learn(state, features, metres)
        rule.param_groups[0]["lr"] = float(training.make_rate(c)(step))
        rule.zero_grad()
        said = torch_depths(c, conv, features)[:, None]
        said = functional.interpolate(said, (24, 36), mode="bilinear")[:, 0]
        pair = torch_losses(said, torch.tensor(metres), step < c.warm)
        wanted = pair[0] + 0.5 * pair[1]
        wanted.backward()
        torch.nn.utils.clip_grad_norm_(conv.parameters(), c.clip)
        rule.step()
        np.testing.assert_allclose(loss, wanted.item(), rtol=2e-5)
    with torch.no_grad():
        wanted = conv.weight[..., 0, 0].T.numpy()
        np.testing.assert_allclose(state.head["kernel"], wanted, rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(state.head["bias"], conv.bias, rtol=1e-3, atol=2e-5)


def test_rates_are_mmcvs_cosine():
    c = config(steps=38_400, warmup=12_800, rate=1e-4)
    for step in (0, 5000, 12_799, 12_800, 38_399):
        regular = 1e-4 * 0.5 * (1 + np.cos(np.pi * step / 38_400))
        k = (1 - step / 12_800) * (1 - 1e-3)
        wanted = regular * (1 - k) if step < 12_800 else regular
        found = float(training.make_rate(c)(step))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-11)


def test_losses_are_those_of_measured_pixels_alone():
    _, metres = batch(0)
    said = np.random.default_rng(1).uniform(0.1, 9, metres.shape).astype(np.float32)
    other = np.where(metres > 0, said, 7.0).astype(np.float32)
    for function in (
        lambda x: depth_loss.scale_invariant(x, metres, False),
        lambda x: depth_loss.gradient(x, metres),
    ):
        assert function(said) == function(other)
    perfect = depth_loss.scale_invariant(metres, metres, False)
    assert float(perfect) <= 1e-6 and depth_loss.gradient(metres, metres) == 0


def test_errors_are_numpys_in_eigens_crop():
    rng = np.random.default_rng(0)
    metres = rng.uniform(0, 12, (480, 640)).astype(np.float32)
    metres[rng.random(metres.shape) < 0.1] = 0
    said = (metres * rng.uniform(0.7, 1.4, metres.shape) + 0.1).astype(np.float32)
    c = config()
    found = depth_loss.errors(said, metres, c.min_depth, c.max_depth, c.judged)
    squares, relative, near = [], [], []
    for y in range(45, 471):
        for x in range(41, 601, 7):
            if 0.001 < metres[y, x] < 10:
                a, b = float(said[y, x]), float(metres[y, x])
                squares.append((a - b) ** 2)
                relative.append(abs(a - b) / b)
                near.append(max(a / b, b / a) < 1.25)
    # Every seventh column, so that the loop is short: close, not equal.
    assert found["rmse"] == pytest.approx(np.mean(squares) ** 0.5, rel=0.02)
    assert found["abs_rel"] == pytest.approx(np.mean(relative), rel=0.05)
    assert found["delta1"] == pytest.approx(np.mean(near), abs=0.01)
    part = np.zeros_like(metres)
    part[45:471, 41:601] = metres[45:471, 41:601]
    assert depth_loss.errors(said, part, c.min_depth, c.max_depth, ()) == found
    assert depth_loss.errors(said, 0 * metres, 0.1, 10, ()) is None


def test_scores_are_means_over_images():
    near = np.full((4, 4), 2.0, np.float32)
    pairs = [(near, near), (near + 1, near), (near, 0 * near)]
    found = depth.score(config(judged=()), pairs)
    assert found == pytest.approx(dict(rmse=0.5, abs_rel=0.25, delta1=0.5))
    with pytest.raises(UserError, match="queries: no pixel of its maps has a depth"):
        depth.score(config(judged=()), pairs[2:])


def test_values_that_cannot_be_are_told():
    for key, value in dict(
        bins=1, judged=(1, 0, 0, 1), border=(1,), crop=(416,), unit=0.0, degrees=-1.0
    ).items():
        with pytest.raises(UserError, match=f"config.evals.depth.{key}: "):
            config(**{key: value})
