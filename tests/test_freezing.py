"""Partial fine-tuning: what is frozen keeps its bytes, what learns learns as if alone."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import runs
from vit_ssl_jax import freezing, step, train
from vit_ssl_jax.errors import UserError

DEPTH, DECAY, CLIP = 3, 0.75, 0.05
NUMBERS = dict(lr=0.01, lr_end=0.01, warmup_epochs=0, first_step=0, clip=CLIP)
NUMBERS |= dict(wd=0.1, wd_end=0.1, no_decay=("bias", "scale", "posemb"))


@pytest.fixture(scope="module")
def method(tiny):
    """A classifier of three blocks, with every kind of parameter of the encoder."""
    changes = dict(variant="3x32x4/8", cls=True, posemb="learned")
    return tiny.method("supervised", vit_changes=changes, pool="mean")


@pytest.fixture(scope="module")
def start(tiny, method):
    """Parameters that are nowhere zero, some of them negative zeros."""
    shapes = jax.eval_shape(
        functools.partial(step.init_model, method=method),
        jax.random.key(0),
        tiny.bytes(8),
    )[0]
    params = tiny.random(shapes)
    params["encoder"]["patch"]["kernel"][0, 0] = -0.0
    return params


def optimizer(tiny, blocks, **changes):
    made = tiny.optimizer(**NUMBERS | dict(layer_decay=DECAY) | changes)
    return freezing.freeze(made, blocks, DEPTH)


def take_steps(tiny, method, start, made, steps=3, accum=1):
    """The state after some steps, and the metrics of the last."""
    state = step.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=start,
        opt_state=made.tx.init(start),
        ema=method.init_ema(start),
    )
    take = functools.partial(step.train_step, method=method, optimizer=made)
    take = jax.jit(functools.partial(take, accum=accum))
    for number in range(steps):
        state, metrics = take(state, tiny.bytes(8, seed=number), jax.random.key(1))
    return state, metrics


def by_path(tree):
    """Leaves by their path."""
    return {
        jax.tree_util.keystr(path): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("blocks, accum", [(0, 1), (1, 2), (DEPTH, 1)])
def test_what_is_frozen_keeps_its_bytes(tiny, method, start, blocks, accum):
    state, metrics = take_steps(
        tiny, method, start, optimizer(tiny, blocks), steps=2, accum=accum
    )
    before, after = by_path(start), by_path(state.params)
    for name, old in before.items():
        new, learns = after[name], np.ones(len(old), bool)
        if "encoder" in name and "'norm'" not in name.replace("blocks", "", 1):
            learns[:] = False
        if "blocks" in name:
            learns = np.arange(DEPTH) >= DEPTH - blocks
        for i, moves in enumerate(learns):
            same = old[i].tobytes() == new[i].tobytes()
            assert same != moves, f"{name}[{i}]"
    moments = jax.tree.leaves(optax.tree.get(state.opt_state, "mu"))
    learning = sum(
        x.size * (blocks / DEPTH if "blocks" in name else 1)
        for name, x in before.items()
        if "blocks" in name or "encoder" not in name or "['norm']" in name
    )
    assert sum(x.size for x in moments) == learning
    assert float(metrics["train/grad_norm"]) > 0


def test_what_learns_does_so_as_if_it_were_alone(tiny, method, start):
    """Gradient of the rest alone; SGD, clipping and layers' rates written out."""
    sgd = dict(name="sgd", lr=0.5, lr_end=0.5, wd=0.0, wd_end=0.0)
    state, metrics = take_steps(tiny, method, start, optimizer(tiny, 1, **sgd))
    alone = {
        "last": jax.tree.map(lambda x: x[-1:], start["encoder"]["blocks"]),
        **{name: x for name, x in start.items() if name != "encoder"},
    }

    def whole(alone):
        blocks = jax.tree.map(
            lambda x, y: jnp.concatenate([x[:-1], y]),
            start["encoder"]["blocks"],
            alone["last"],
        )
        rest = {name: x for name, x in alone.items() if name != "last"}
        return {"encoder": start["encoder"] | {"blocks": blocks}, **rest}

    def loss_fn(alone, views):
        targets = method.make_targets((), views, 0)
        outputs = method.model.apply({"params": whole(alone)}, views, False)
        return method.loss_fn(outputs, targets)[0]

    momenta, grad = jax.tree.map(jnp.zeros_like, alone), jax.jit(jax.grad(loss_fn))
    for number in range(3):
        views = method.make_views(
            jax.random.key(1), step.prepare(tiny.bytes(8, seed=number))
        )
        grads = grad(alone, views)
        norm = optax.tree.norm(grads)
        grads = optax.tree.scale(jnp.minimum(1, CLIP / norm), grads)
        momenta = jax.tree.map(lambda m, g: 0.9 * m + g, momenta, grads)
        moves = momenta | {"last": optax.tree.scale(DECAY, momenta["last"])}
        alone = jax.tree.map(lambda x, m: x - 0.5 * m, alone, moves)
    ours, want = by_path(state.params), by_path(whole(alone))
    for name, x in ours.items():
        np.testing.assert_allclose(x, want[name], atol=2e-6, err_msg=name)
    assert float(metrics["train/grad_norm"]) == pytest.approx(float(norm), rel=1e-3)


def test_nothing_changes_where_all_of_it_learns(tiny):
    made = tiny.optimizer()
    assert freezing.freeze(made, -1, DEPTH) is made


@pytest.mark.parametrize("blocks", [-2, 4])
def test_blocks_that_are_not_there_are_refused(tiny, blocks):
    with pytest.raises(
        UserError, match=f"config.optim.train_blocks: {blocks}, .* 3 bl"
    ):
        freezing.freeze(tiny.optimizer(), blocks, DEPTH)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_what_learns(tmp_path):
    """Through checkpoints, on a mesh that splits moments."""
    config = runs.load("pretext_cpu.py", "supervised")
    changes = {f"evals.{name}.every_epochs": -1.0 for name in config.evals}
    config.update_from_flattened_dict(
        changes
        | {
            "data.name": "fake",
            "vit.variant": "2x32x2/8",
            "batch_size": 16,
            "steps": 4,
            "checkpoint_every": 2,
            "log_every": 2,
            "summary": False,
            "health.every": 0,
            "optim.train_blocks": 1,
            "optim.layer_decay": 0.75,
            "mesh.fsdp": 2,
        }
    )
    train.train(config, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "4")
    train.train(config, tmp_path / "stopped")
    ours, theirs = (runs.weights(tmp_path / n) for n in ("stopped", "straight"))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
