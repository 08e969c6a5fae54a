"""The objective on held-out images: what the method says of every image, averaged."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import methods, partition, step, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import pretext


@pytest.fixture(scope="module")
def case(tiny):
    """MAE, a fresh state, and three batches of which the last is half empty."""
    method = tiny.method("mae")
    parts = {"method": method, "optimizer": tiny.optimizer()}
    init = functools.partial(step.init_state, batch=tiny.bytes(8), **parts)
    batches = [tiny.bytes(8, seed=i) | {"valid": np.arange(8) < n} for i, n in VALID]
    return method, jax.jit(init)(jax.random.key(0)), batches


VALID = [(0, 8), (1, 8), (2, 4)]


def copies(batches):
    return iter([dict(batch) for batch in batches])


def test_it_is_the_mean_over_images(case):
    method, state, batches = case
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    evaluate = pretext.make_evaluator(method, mesh)
    found = evaluate(state, copies(batches))
    assert found == evaluate(state, copies(batches))  # fixed keys

    @jax.jit
    def losses(batch, key):
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views, 0)
        return jnp.square(outputs - targets).mean((1, 2))  # of every image

    each = []
    for i, batch in enumerate(copies(batches)):
        valid = batch.pop("valid")
        each += losses(batch, jax.random.key(i))[valid].tolist()
    assert len(each) == 20
    assert found["loss"] == pytest.approx(np.mean(each), rel=1e-5)


class Embed(nn.Module):
    """A linear layer on the mean colour: `[B 2]`."""

    @nn.compact
    def __call__(self, views, train):
        return nn.Dense(2)(views["image"].mean((1, 2)))


def uniformity(outputs, targets):
    """Log of the mean potential of all pairs (Wang & Isola, 2020): of a whole batch."""
    apart = jnp.square(outputs[:, None] - outputs[None]).sum(-1)
    others = 1.0 - jnp.eye(len(outputs))
    loss = jnp.log((jnp.exp(-2.0 * apart) * others).sum() / others.sum())
    return loss, {"spread": outputs.std(0).mean()}


@pytest.fixture(scope="module")
def uniform(tiny):
    """A method with that loss, and its state."""
    method = methods.Method(
        model=Embed(),
        make_views=lambda key, batch: {"image": batch["image"]},
        make_targets=lambda ema, views, step: {},
        loss_fn=uniformity,
        batch_loss=True,
    )
    parts = {"method": method, "optimizer": tiny.optimizer()}
    return method, step.init_state(jax.random.key(0), tiny.bytes(8), **parts)


def test_a_loss_of_whole_batches_is_the_mean_over_full_ones(uniform, case):
    method, state = uniform
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    found = pretext.make_evaluator(method, mesh)(state, copies(case[2]))
    expected = []
    for batch in case[2][:2]:  # the third isn't full
        image = np.float32(batch["image"]) / 255
        x = method.model.apply({"params": state.params}, {"image": image}, False)
        x = np.asarray(x, np.float64)
        pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
        potential = [np.exp(-2 * np.square(x[i] - x[j]).sum()) for i, j in pairs]
        expected.append([np.log(np.mean(potential)), x.std(0).mean()])
    loss, spread = np.mean(expected, axis=0)
    assert found == {
        "loss": pytest.approx(loss, rel=1e-4),
        "spread": pytest.approx(spread, rel=1e-4),
    }


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (2, "config.data.eval_batch_size: .* 4 images .* of 8; set it to 4"),
        (8, "least 8"),
    ],
)
def test_no_full_batch_is_refused(uniform, case, devices, said):
    method, state = uniform
    sizes = {"data": devices, "fsdp": 1, "tensor": 1}
    mesh = partition.make_mesh(sizes, jax.devices()[:devices])
    with pytest.raises(UserError, match=said):
        pretext.make_evaluator(method, mesh)(state, copies(case[2][2:]))


def test_a_split_for_no_whole_batch_ends_it_before_a_step(tmp_path):
    config = runs.load("pretext_cpu.py", "lejepa")
    small = {"data.name": "fake", "vit.variant": "2x32x2/8", "batch_size": 16}
    small |= {"evals.knn.every_epochs": -1.0, "evals.pretext.split": "test[:100]"}
    config.update_from_flattened_dict(small)
    with pytest.raises(UserError, match="100 images fill none of 256; set it to 96"):
        train.train(config, tmp_path)
    assert not runs.metrics(tmp_path) and not list(tmp_path.glob("checkpoints/*"))
