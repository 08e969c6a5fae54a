"""What every method keeps, found by its file: nothing here names one.

Hyper-parameters come from a recipe that trains the method, its networks made small.
"""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import methods, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import vit

RECIPES = sorted(pathlib.Path(__file__).parents[2].glob("configs/*_vit*.py"))
SMALL = {"_width": 16, "_depth": 1, "_heads": 4}


def recipe(name):
    """The first recipe of a method, if there is one."""
    for path in RECIPES:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
        if config.method.name == name:
            return config
    return None


@pytest.fixture(scope="module", params=methods.names())
def case(request, tiny):
    """A method, its jitted functions and a state after no step."""
    config, numbers, changes, size = recipe(request.param), {}, {}, (32, 32)
    if config:
        # A smaller patch, not a smaller grid: the recipe's masks stay what they are.
        patch = vit.decode_variant(config.vit.variant)["patch"]
        size = tuple(2 * side // patch for side in config.data.size)
        changes = {"variant": "2x32x4/2", "cls": config.vit.cls}
        numbers = {k: v for k, v in config.method.items() if k != "name"}
        numbers |= {
            k: n for k in numbers for end, n in SMALL.items() if k.endswith(end)
        }
    method = tiny.method(request.param, size, changes, **numbers)
    optimizer = tiny.optimizer(lr=3e-3, warmup_epochs=0)
    return Case(method, optimizer, tiny.bytes(4, size))


class Case:
    """A method with what its tests share, everything computed once."""

    def __init__(self, method, optimizer, batch):
        self.method, self.batch = method, batch
        parts = {"method": method, "optimizer": optimizer}
        self.views = jax.jit(lambda key: method.make_views(key, step.prepare(batch)))
        init = functools.partial(step.init_state, batch=batch, **parts)
        self.state = jax.jit(init)(jax.random.key(0))
        train = functools.partial(step.train_step, accum=1, **parts)
        self.train = jax.jit(lambda state, key: train(state, batch, key))

    @functools.cached_property
    def outputs(self):
        """Outputs and targets of fixed views."""

        @jax.jit
        def run(params, ema, views):
            outputs = self.method.model.apply({"params": params}, views, False)
            return outputs, self.method.make_targets(ema, views)

        views = self.views(jax.random.key(1))
        return run(self.state.params, self.state.ema, views)

    @functools.cached_property
    def history(self):
        """States and losses of 30 steps on one batch with the same draws."""
        state, losses = self.state, []
        for _ in range(30):
            state, metrics = self.train(state, jax.random.key(2))
            losses.append(metrics)
        return state, jax.device_get(losses)


def test_views_have_the_batch_in_front_and_static_shapes(case):
    one, other = (case.views(jax.random.key(seed)) for seed in (1, 2))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), v) for v in (one, other)]
    assert shapes[0] == shapes[1]
    assert all(len(x) == 4 for x in jax.tree.leaves(one))


def test_views_follow_the_key(case):
    once, again = (case.views(jax.random.key(1)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, again)


def test_outputs_targets_and_loss_are_finite(case):
    outputs, targets = case.outputs
    for x in jax.tree.leaves((outputs, targets)):
        assert np.isfinite(x).all()
    for x in jax.tree.leaves(outputs):
        assert x.dtype == jnp.float32
    loss, metrics = case.method.loss_fn(outputs, targets)
    assert loss.shape == () and loss > 0 and loss.dtype == jnp.float32
    assert all(jnp.shape(x) == () for x in metrics.values())


def test_encoder_receives_gradient_in_every_parameter(case):
    views = case.views(jax.random.key(1))
    _, targets = case.outputs

    @jax.jit
    def gradient(params):
        def loss_fn(params):
            out = case.method.model.apply({"params": params}, views, False)
            return case.method.loss_fn(out, targets)[0]

        return jax.grad(loss_fn)(params)

    grads = gradient(case.state.params)
    for path, x in jax.tree_util.tree_leaves_with_path(grads["encoder"]):
        assert np.isfinite(x).all() and np.any(x != 0), jax.tree_util.keystr(path)


def test_it_overfits_one_batch(case):
    losses = [metrics["train/loss"] for metrics in case.history[1]]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


def test_ema_moves_where_there_is_one(case):
    before, after = case.state.ema, case.history[0].ema
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        assert np.any(old != new)
    frozen = case.method.update_ema(before, case.state.params, case.outputs[1], 0)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6), frozen, before
    )


def test_downstream_encoder_is_the_vit_of_the_model(case):
    encoder = case.method.encoder(case.state.params, case.state.ema)
    image = step.prepare(case.batch)["image"]
    tokens = case.method.model.encoder.apply({"params": encoder}, image, False)
    assert tokens.shape[0] == 4 and tokens.shape[-1] == 32


def test_draw_gives_images(case):
    views = case.views(jax.random.key(1))
    for name, image in case.method.draw(*case.outputs, views).items():
        assert image.shape == case.batch["image"].shape, name
        assert np.all((image >= 0) & (image <= 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"hue": 1}, r"\+ hue \(unknown\)"), ({}, r"missing"), ({"name": "dino"}, "dino")],
)
def test_a_config_that_does_not_fit_is_explained(tiny, changes, said):
    with pytest.raises(UserError, match=said):
        methods.make({"name": methods.names()[0]} | changes, context=None)
