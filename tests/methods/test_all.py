"""What every method keeps, found by its file: nothing here names one.

Hyper-parameters come from a recipe that trains the method, its networks made small.
"""

import dataclasses
import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import methods, partition, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import variants

ONE = partition.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
# Operations of a lowered program that wait for the host, or send to it.
HOST = re.compile(r"callback|infeed|outfeed|stablehlo\.(send|recv)\b")


def recipe(name):
    """The first recipe of a method, if there is one."""
    for file in runs.RECIPES:
        if "_vit" in file:
            config = runs.load(file)
            if config.method.name == name:
                return config
    return None


@pytest.fixture(scope="module", params=methods.names())
def case(request, tiny):
    """A method, its jitted functions and a state after no step."""
    config, numbers, changes, size = recipe(request.param), {}, {}, (32, 32)
    if config:
        # A smaller patch, not a smaller grid: the recipe's masks stay what they are.
        patch = variants.decode(config.vit.variant)["patch"]
        size = tuple(2 * side // patch for side in config.data.size)
        changes = {"variant": "2x32x4/2", "cls": config.vit.cls}
        changes["posemb"] = config.vit.posemb
        numbers = runs.tiny_method(config.method.to_dict(), patch)
        del numbers["name"]
    make = functools.partial(tiny.method, request.param, size, changes, **numbers)
    optimizer = tiny.optimizer(lr=3e-3, warmup_epochs=0)
    return Case(request.param, make, optimizer, tiny.bytes(4, size))


class Case:
    """A method with what its tests share, everything computed once."""

    def __init__(self, name, make, optimizer, batch):
        self.name, self.make, self.method, self.batch = name, make, make(), batch
        method = self.method
        self.views = jax.jit(lambda key: method.make_views(key, step.prepare(batch)))
        numbers = dict(batch_size=4, size=batch["image"].shape[1:3], accum=1)
        self.program = step.make_program(method, optimizer, ONE, **numbers)
        self.key = jax.device_put(jax.random.key(2), self.program.replicated)
        self.state = self.program.init(jax.random.key(0))

    def train(self, state, batches, same_draws=False):
        """The state after a step on each batch, and the metrics.

        Draws follow from the step, so `same_draws` sets it back each time.
        """
        batches = [step.put_batch(batch, ONE) for batch in batches]
        state = jax.tree.map(jnp.copy, state)  # a step eats its state
        first, history = jnp.copy(state.step), []
        with jax.transfer_guard("disallow"):
            for batch in batches:
                if same_draws:
                    state = state.replace(step=jnp.copy(first))
                state, metrics = self.program.step(state, batch, self.key)
                history.append(metrics)
        return state, jax.device_get(history)

    @functools.cached_property
    def outputs(self):
        """Outputs and targets of fixed views."""

        @jax.jit
        def run(params, ema, views):
            outputs = self.method.model.apply({"params": params}, views, False)
            return outputs, self.method.make_targets(ema, views, 0)

        views = self.views(jax.random.key(1))
        return run(self.state.params, self.state.ema, views)

    @functools.cached_property
    def history(self):
        """The state after 30 steps on one batch with the same draws, and metrics."""
        return self.train(self.state, 30 * [self.batch], same_draws=True)


# Thirty steps of the others are for -m slow.
OFTEN = pytest.mark.parametrize(
    "case", runs.mostly_slow(methods.names(), "mae", "ijepa", "dino"), indirect=True
)


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


@OFTEN
def test_it_overfits_one_batch(case):
    losses = [metrics["train/loss"] for metrics in case.history[1]]
    assert np.isfinite(losses).all()
    # DINO's loss has a floor that moves with the teacher's centre: what is above it.
    part = [m.get("train/divergence", m["train/loss"]) for m in case.history[1]]
    assert part[-1] < 0.9 * part[0]


@OFTEN
def test_a_run_compiles_once_and_needs_nothing_from_the_host(case, tiny):
    """Batches differ; implicit transfers would raise in `train`."""
    size = case.batch["image"].shape[1:3]
    batches = [tiny.bytes(4, size, seed) for seed in (1, 2, 3)]
    _, history = case.train(case.history[0], batches)
    losses = [metrics["train/loss"] for metrics in history]
    assert np.isfinite(losses).all() and len(set(map(float, losses))) == 3
    assert case.program.step.__wrapped__._cache_size() == 1


def host_operations(lowered):
    """Lines of a lowered program that involve the host."""
    return [line for line in lowered.as_text().splitlines() if HOST.search(line)]


def test_a_step_holds_no_operation_of_the_host(case):
    program = case.program
    lowered = program.step.lower(program.state, program.batch, jax.random.key(0))
    assert "dot_general" in lowered.as_text()
    assert host_operations(lowered) == []


def printing(x):
    """What a forgotten print looks like."""
    jax.debug.print("{}", x)
    return x


def calling(x):
    """Numpy in the middle of a step."""
    return jax.pure_callback(np.sin, x, x)


@pytest.mark.parametrize("function", [printing, calling])
def test_operations_of_the_host_are_seen(function):
    assert host_operations(jax.jit(function).lower(np.float32(1.0)))


def test_a_batch_that_was_not_sent_is_refused(tiny):
    """So that passing under the guard means something."""
    double = jax.jit(lambda x: 2 * x)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="host-to-dev"):
        double(tiny.bytes(1)["image"])


def test_ema_moves_where_there_is_one(case):
    before, after = case.state.ema, case.history[0].ema
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        assert np.any(old != new)
    # A teacher that is its student stays, a running statistic needn't.
    after = case.method.update_ema(before, case.state.params, case.outputs[1], 0)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, after.get("encoder"), before.get("encoder"))


def test_downstream_encoder_is_the_vit_of_the_model(case):
    encoder = case.method.encoder(case.state.params, case.state.ema)
    image = step.prepare(case.batch)["image"]
    tokens = case.method.model.encoder.apply({"params": encoder}, image, False)
    assert tokens.shape[0] == 4 and tokens.shape[-1] == 32


def test_draw_gives_images(case):
    views = case.views(jax.random.key(1))
    pictures = case.method.draw(*case.outputs, views)
    more = case.method.draw_more(case.state.params, case.state.ema, views)
    assert pictures and not set(pictures) & set(more)
    for name, rows in (pictures | more).items():
        assert len(rows) == 4, name
        if rows.ndim == 1:
            assert rows.dtype in (jnp.int32, jnp.float32), name
            continue
        assert rows.shape[1] % case.batch["image"].shape[1] == 0, name
        assert rows.shape[1] == rows.shape[2] and rows.shape[3] == 3, name
        assert rows.dtype == jnp.float32, name
        assert np.all((rows >= 0) & (rows <= 1)), name


@pytest.mark.parametrize("extras", [{"posemb": "rope"}, {}])
def test_registers_and_rotary_positions_go_with_every_method(case, tiny, extras):
    """As shapes: what they compute is in tests/models/test_variants.py."""
    plain = case.method.model.encoder
    changes = {"cls": plain.cls, "posemb": plain.posemb, **extras}
    changes["variant"] = f"2x32x4/{plain.patch},registers=3"
    numbers = dict(case.make.keywords)
    if case.name == "relvit" and extras:
        numbers["shuffle"] = True  # else positions are its answer
    method = tiny.method(*case.make.args[:2], changes, **numbers)

    def gradient(key):
        views = method.make_views(key, step.prepare(case.batch))
        params = method.model.init({"params": key}, views, False)["params"]
        targets = method.make_targets(method.init_ema(params), views, 0)

        def loss_fn(params):
            rngs = {"dropout": key}
            out = method.model.apply({"params": params}, views, True, rngs=rngs)
            return method.loss_fn(out, targets)[0]

        return jax.grad(loss_fn)(params)

    encoder = jax.eval_shape(gradient, jax.random.key(0))["encoder"]
    assert encoder["registers"].shape == (1, 3, 32)
    assert ("posemb" in encoder) == (plain.posemb == "learned" and not extras)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"hue": 1}, r"\+ hue \(unknown\)"), ({}, r"missing"), ({"name": "dino"}, "dino")],
)
def test_a_config_that_does_not_fit_is_explained(tiny, changes, said):
    with pytest.raises(UserError, match=said):
        methods.make({"name": methods.names()[0]} | changes, context=None)


# No value of the type can work: a method says so by `RANGES` or by its `check`.
WRONG = {
    int: [-1],
    float: [float("nan"), float("inf")],
    str: ["nonsense"],
    tuple: [(2.0, 1.0), (), (1.0,)],
    bool: [],
}


def test_every_value_is_checked_and_named(case):
    module = importlib.import_module(f"{methods.__name__}.{case.name}")
    fields = dataclasses.fields(module.Config)
    assert set(module.RANGES) <= {field.name for field in fields}
    for field in fields:
        for value in WRONG[field.type]:
            with pytest.raises(UserError) as error:
                case.make(**{field.name: value})
            said = str(error.value)
            assert said.startswith(f"config.method.{field.name}: "), said
            assert "\n" not in said and str(value) in said
