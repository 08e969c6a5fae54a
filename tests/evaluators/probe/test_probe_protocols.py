"""What published probes do beside LARS: against torch, on a grid with all of it."""

import copy

import jax
import numpy as np
import pytest
import torch

from tests import runs
from tests.evaluators.probe import test_probe_heads as of_heads
from vit_ssl_jax import evaluators, partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import probe
from vit_ssl_jax.evaluators.probe import heads

READOUT, STEPS = (1, "mean"), 18
VISSL = dict(
    readouts=(READOUT,),
    batch_norm=(False, True),
    norm_group=4,
    optimizer="sgd",
    nesterov=True,
    rates=(0.3,),
    decays=(0.1,),
    decay_bias=True,
    schedule="milestones",
    milestones=(1.0, 2.0, 3.0),
    warmup_epochs=0.0,
)


def torch_head(config, group, norm):
    """A linear layer with the same start, and batch norm without scale and shift."""
    start = heads.init(config, of_heads.WIDTHS, of_heads.CLASSES).heads[group]
    width = of_heads.WIDTHS[READOUT]
    linear = torch.nn.Linear(width, of_heads.CLASSES)
    linear.weight.data = torch.tensor(np.array(start["kernel"][0]).T)
    linear.bias.data = torch.tensor(np.array(start["bias"][0]))
    return linear, torch.nn.BatchNorm1d(width, eps=1e-6, affine=False) if norm else None


def normalized(x, norm, group):
    """As several GPUs of `group` images have it: the first one's statistics stay."""
    others = [copy.deepcopy(norm) for _ in x[group:].split(group)]
    pieces = zip([norm, *others], x.split(group))
    return torch.cat([one(piece) for one, piece in pieces])


def torch_fit(config, group, norm):
    """The head, and its norm, after STEPS of torch's SGD and MultiStepLR."""
    linear, norm = torch_head(config, group, norm)
    sgd = torch.optim.SGD(
        linear.parameters(), lr=0.3, momentum=0.9, weight_decay=0.1, nesterov=True
    )
    ends = [round(epoch * config.epoch_steps) for epoch in config.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, ends, gamma=0.1)
    for number in range(STEPS):
        found, labels = of_heads.batch(number)
        x = torch.tensor(found[READOUT])
        x = normalized(x, norm, config.norm_group) if norm else x
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(linear(x), torch.tensor(labels)).backward()
        sgd.step()
        schedule.step()
    return linear, norm


def test_nesterov_milestones_and_groups_of_batch_norm_are_torchs():
    config = of_heads.make(**VISSL)
    state, _ = of_heads.fit(config, STEPS)
    assert list(config.groups) == ["last1_mean", "last1_mean_bn4"]
    for group, (_, normed) in config.groups.items():
        linear, norm = torch_fit(config, group, normed)
        ours = {key: np.asarray(x[0]) for key, x in state.heads[group].items()}
        want = linear.weight.detach().numpy().T
        np.testing.assert_allclose(ours["kernel"], want, atol=2e-6)
        np.testing.assert_allclose(ours["bias"], linear.bias.detach(), atol=2e-6)
        if norm:
            stats = state.stats[group]
            np.testing.assert_allclose(stats["mean"], norm.running_mean, atol=1e-5)
            np.testing.assert_allclose(stats["variance"], norm.running_var, atol=1e-5)
    (name,) = config.names("last1_mean_bn4")
    assert name == (
        "last1_mean_bn4_sgd0.9_nesterov_wdbias_lr0.3_wd0.1_milestones1-2-3_ep4_b16"
        "_steps5_cached_seed3"
    )


@pytest.mark.parametrize("ways", [2, 8])
def test_groups_are_the_same_on_a_mesh(ways):
    """Where a group lies on one device, and where it lies on two."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (16, 5)).astype(np.float32)
    alone = jax.jit(lambda x: heads.normalize_groups(x, 4))
    mesh = partition.make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:ways])
    spread = jax.device_put(x, partition.batch_sharding(mesh))
    for ours, want in zip(alone(spread), alone(x)):
        np.testing.assert_allclose(ours, want, atol=1e-6)
    np.testing.assert_allclose(alone(x)[1], x[:4].mean(0), rtol=1e-5)


def test_a_group_as_large_as_the_batch_is_the_batch():
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    for ours, want in zip(heads.normalize_groups(x, 512), heads.normalize_groups(x, 0)):
        np.testing.assert_array_equal(ours, want)


def test_a_cosine_may_end_above_zero():
    config = of_heads.make(warmup_epochs=0.0, epochs=50.0, rate_end=0.01)
    factor = heads.make_schedule(config, 5)
    ours = [float(factor(step)) for step in (0, 125, 250)]
    np.testing.assert_allclose(ours, [1.0, 0.505, 0.01], rtol=1e-5)


def test_the_published_groups_are_the_recipes():
    """MAE's GPU has 512 images; VISSL synchronises its GPUs."""
    groups = {
        recipe: runs.load("probe_vitl.py", recipe).evals.probe.norm_group
        for recipe in ("mae", "ijepa")
    }
    assert groups == {"mae": 512, "ijepa": 0}


@pytest.mark.parametrize(
    "changes",
    [
        dict(schedule="milestones", milestones=()),
        dict(schedule="milestones", milestones=(8.0, 4.0)),
        dict(optimizer="lars", nesterov=True),
        dict(batch_size=16, norm_group=5),
        dict(rate_end=2.0),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(changes):
    cut = dict(bank="a", select="", queries="b", flip=True, single_draw=False)
    cut |= dict(crop=(0.1, 1.0), ratio=(1.0, 1.0))
    settings = vars(of_heads.make(**changes)) | cut
    with pytest.raises(UserError, match=rf"(probe.|^){[*changes][-1]}: "):
        probe.check(evaluators.read_config("probe", settings), None, None)
