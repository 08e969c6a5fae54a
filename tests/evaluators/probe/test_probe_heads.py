"""The grid of heads: published steps, a second implementation, one by one."""

import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import evaluators
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import probe
from vit_ssl_jax.evaluators.probe import heads, sweep

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
NUMBERS = dict(
    readouts=((1, "mean"), (2, "cls")),
    batch_norm=(False, True),
    optimizer="lars",
    momentum=0.9,
    rates=(0.5, 2.0, 8.0),
    rate_batch=0,
    decays=(0.0, 0.01),
    schedule="cosine",
    step_epochs=15.0,
    milestones=(),
    rate_end=0.0,
    norm_group=0,
    nesterov=False,
    decay_bias=False,
    warmup_epochs=1.0,
    epochs=4.0,
    epoch_steps=5,
    batch_size=16,
    accum=1,
    augment=False,
    checkpoint_every=100,
    seed=3,
)
WIDTHS, CLASSES = {(1, "mean"): 6, (2, "cls"): 9}, 3


def make(**changes):
    """A config."""
    return sweep.Config(**NUMBERS | changes)


def batch(number):
    """Features of both readouts and labels."""
    rng = np.random.default_rng(number)
    found = {r: np.float32(1 + rng.normal(size=(16, f))) for r, f in WIDTHS.items()}
    return found, rng.integers(0, CLASSES, 16)


def fit(config, steps=20):
    """The state after some steps, and the losses of the last."""
    factor = heads.make_schedule(config, config.epoch_steps)
    learn = jax.jit(functools.partial(heads.learn, config, factor))
    state = heads.init(config, WIDTHS, CLASSES)
    for number in range(steps):
        state, losses = learn(state, *batch(number))
    return state, losses


@pytest.mark.parametrize("case, decay", [("wd0", 0.0), ("wd1", 0.01)])
def test_lars_and_batch_norm_are_the_published_ones(case, decay):
    """In a grid of other rates and decays, the head with the published numbers."""
    read = np.load(GOLDEN / f"lars_linprobe_{case}.npz")
    c = json.loads((GOLDEN / f"lars_linprobe_{case}.json").read_text())["config"]
    config = make(
        readouts=((1, "mean"),),
        batch_norm=(True,),
        rates=(0.1, c["lr"]),
        decays=(0.0, 0.01),
    )
    i = [*zip(*config.grid)].index((c["lr"], np.float32(decay)))
    state = heads.init(config, WIDTHS, CLASSES)
    group = "last1_mean_bn"
    for name, x in (
        ("kernel", read["step0/1.weight"].T),
        ("bias", read["step0/1.bias"]),
    ):
        state.heads[group][name] = jnp.stack([x] * 4)
    learn = jax.jit(functools.partial(heads.learn, config, lambda step: 1.0))
    for step in range(3):
        found = {(1, "mean"): read[f"x{step}"]}
        state, losses = learn(state, found, read[f"y{step}"])
        kernel, bias = (state.heads[group][k][i] for k in ("kernel", "bias"))
        for got, want in {
            "loss": (losses[group][i], read[f"loss{step}"]),
            "kernel": (kernel, read[f"step{step + 1}/1.weight"].T),
            "bias": (bias, read[f"step{step + 1}/1.bias"]),
            "mean": (state.stats[group]["mean"], read[f"running_mean{step + 1}"]),
            "variance": (
                state.stats[group]["variance"],
                read[f"running_var{step + 1}"],
            ),
        }.values():
            np.testing.assert_allclose(got, want, atol=2e-6)
    ranked = heads.rank(config, state, {(1, "mean"): read["x0"]}, 3)[group][i]
    np.testing.assert_array_equal(ranked, np.argsort(-read["eval_logits"], axis=1))


def second_sgd(config, rate, decay, readout, norm, steps):
    """SGD on softmax regression in numpy and float64: kernel, bias."""
    start = heads.init(config, WIDTHS, CLASSES)
    group = next(g for g, (r, n) in config.groups.items() if (r, n) == (readout, norm))
    kernel, bias = (np.float64(start.heads[group][k][0]) for k in ("kernel", "bias"))
    momenta = [0.0, 0.0]
    total, warmup = config.epochs * config.epoch_steps, config.epoch_steps
    for number in range(steps):
        found, labels = batch(number)
        x = np.float64(found[readout])
        if norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / len(x)
        momenta[0] = 0.9 * momenta[0] + x.T @ error + decay * kernel
        momenta[1] = 0.9 * momenta[1] + error.sum(0)
        progress = max(number - warmup, 0) / (total - warmup)
        factor = min(number / warmup, 1) * (0.5 + 0.5 * np.cos(np.pi * progress))
        kernel = kernel - rate * factor * momenta[0]
        bias = bias - rate * factor * momenta[1]
    return kernel, bias


def test_sgd_is_that_of_a_second_implementation():
    config = make(optimizer="sgd", rates=(0.01, 0.3), decays=(0.0, 0.1))
    state, _ = fit(config)
    for group, (readout, norm) in config.groups.items():
        for i, (rate, decay) in enumerate(zip(*config.grid)):
            want = second_sgd(config, rate, decay, readout, norm, steps=20)
            got = (state.heads[group][k][i] for k in ("kernel", "bias"))
            for a, b in zip(got, want):
                np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer, rates", [("lars", (0.5, 2.0, 8.0)), ("sgd", (0.05, 0.2, 0.5))]
)
def test_the_grid_is_the_same_heads_trained_one_by_one(optimizer, rates):
    config = make(optimizer=optimizer, rates=rates)
    state, losses = fit(config)
    cells = itertools.product(config.readouts, (False, True), rates[::2], config.decays)
    for readout, norm, rate, decay in cells:
        alone = make(
            optimizer=optimizer,
            readouts=(readout,),
            batch_norm=(norm,),
            rates=(rate,),
            decays=(decay,),
        )
        (group,) = alone.groups
        (name,) = alone.names(group)
        i = config.names(group).index(name)
        other, loss = fit(alone)
        np.testing.assert_allclose(losses[group][i], loss[group][0], atol=1e-5)
        for a, b in zip(
            jax.tree.leaves(state.heads[group]), jax.tree.leaves(other.heads[group])
        ):
            np.testing.assert_allclose(a[i], b[0], atol=1e-5)
    spread = np.std([float(x) for group in losses.values() for x in group])
    assert spread > 1e-3  # the heads do differ


def test_decay_and_trust_leave_biases_alone():
    config = make(rates=(1.0,), decays=(0.0, 0.5), batch_norm=(False,))
    state = heads.init(config, WIDTHS, CLASSES)
    ones = jax.tree.map(jnp.ones_like, state.heads)
    state = state.replace(heads=ones)
    found, labels = batch(0)
    after, _ = heads.learn(config, lambda step: 1.0, state, found, labels)
    bias = after.heads["last1_mean"]["bias"]
    np.testing.assert_array_equal(bias[0], bias[1])
    share = np.full((16, CLASSES), 1 / CLASSES) - np.eye(CLASSES)[labels]
    np.testing.assert_allclose(bias[0], 1 - share.mean(0), atol=1e-6)


def test_schedules():
    cosine = heads.make_schedule(make(warmup_epochs=10.0, epochs=90.0), 78)
    for epoch, want in {0: 0, 5: 0.5, 10: 1, 50: 0.5, 90: 0}.items():
        assert cosine(epoch * 78) == pytest.approx(want, abs=1e-6)
    plain = heads.make_schedule(make(warmup_epochs=0.0, epochs=10.0), 1250)
    assert plain(0) == 1
    tenths = heads.make_schedule(make(schedule="step", warmup_epochs=0.0), 5)
    for step, want in {0: 1, 74: 1, 75: 0.1, 149: 0.1, 150: 0.01, 249: 0.001}.items():
        assert tenths(step) == pytest.approx(want)
    ramped = heads.make_schedule(make(schedule="step", warmup_epochs=2.0), 5)
    assert [float(ramped(step)) for step in (0, 5, 10)] == [0, 0.5, 1]


def test_names_say_every_number():
    config = make(
        readouts=((4, "mean"),),
        batch_norm=(True,),
        rates=(0.1,),
        rate_batch=256,
        decays=(0.0, 5e-4),
        batch_size=16384,
        warmup_epochs=10.0,
        epochs=90.0,
        augment=True,
    )
    assert config.names("last4_mean_bn") == [
        "last4_mean_bn_lars0.9_lr6.4_wd0_cosine_warm10_ep90_b16384_steps5_aug_seed3",
        "last4_mean_bn_lars0.9_lr6.4_wd0.0005_cosine_warm10_ep90_b16384_steps5_aug_seed3",
    ]
    (name,) = make(
        optimizer="sgd", schedule="step", warmup_epochs=0.0, rates=(1e-5,), decays=(0,)
    ).names("last1_cls")
    assert name == "last1_cls_sgd0.9_lr1e-05_wd0_step15_ep4_b16_steps5_cached_seed3"


def test_heads_start_alike_with_the_published_deviation():
    config = make(readouts=((1, "mean"), (1, "cls")))
    state = heads.init(config, {(1, "mean"): 500, (1, "cls"): 500}, 40)
    kernels = [h["kernel"] for h in state.heads.values()]
    for kernel in kernels:
        np.testing.assert_array_equal(kernel, np.stack([kernels[0][0]] * 6))
    assert float(kernels[0][0].std()) == pytest.approx(0.01, rel=0.02)
    assert not any(h["bias"].any() for h in state.heads.values())


@pytest.mark.parametrize(
    "changes",
    [
        dict(rates=()),
        dict(rates=(0.1, 0.1)),
        dict(rates=(-1.0,)),
        dict(decays=(-1e-4,)),
        dict(batch_norm=()),
        dict(optimizer="adam"),
        dict(schedule="linear"),
        dict(schedule="step", step_epochs=0.0),
        dict(epochs=0.0),
        dict(accum=0),
        dict(momentum=-0.1),
    ],
)
def test_bad_numbers_are_refused_by_name(changes):
    key = [*changes][-1]
    images = dict(bank="a", select="", queries="b", flip=True, single_draw=False)
    cut = images | dict(crop=(0.1, 1.0), ratio=(1.0, 1.0))
    with pytest.raises(UserError, match=rf"(config.evals.probe.|^){key}: "):
        c = evaluators.read_config("probe", vars(make(**changes)) | cut)
        probe.check(c, None, None)
