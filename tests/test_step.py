"""The train step: on any mesh and in any number of micro-batches it is the same."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import methods, partition, step

SIZE, BATCH, STEPS = (32, 32), 16, 5
KEY = jax.random.key(0)


def method_of(tiny, name, **changes):
    """A tiny MAE with, or I-JEPA without class token; decoders of width 16."""
    return tiny.method(name, SIZE, {"cls": name == "mae", "remat": "dots", **changes})


def run(tiny, name, mesh, accum=1):
    """Losses and gradient norms of a few steps, and the last parameters."""
    numbers = {"batch_size": BATCH, "size": SIZE, "accum": accum}
    mesh = partition.make_mesh(mesh, jax.devices()[: np.prod(list(mesh.values()))])
    optimizer = tiny.optimizer(warmup_epochs=0)
    program = step.make_program(method_of(tiny, name), optimizer, mesh, **numbers)
    state, history = program.init(KEY), []
    for i in range(STEPS):
        batch = step.put_batch(tiny.bytes(BATCH, seed=i), mesh)
        state, metrics = program.step(state, batch, KEY)
        history.append([metrics["train/loss"], metrics["train/grad_norm"]])
    return np.array(history), jax.device_get(state.params), program


ONE = {"data": 1, "fsdp": 1, "tensor": 1}
EIGHT = {"data": 2, "fsdp": 2, "tensor": 2}
DATA = {"data": 8, "fsdp": 1, "tensor": 1}


@pytest.fixture(scope="module", params=["mae", "ijepa"])
def one(request, tiny):
    """A method's name and its run on one device."""
    return request.param, *run(tiny, request.param, ONE)


def without_key_bias(params):
    """Softmax cancels the bias of the keys: Adam makes a step of its rounding."""

    def leaf(path, x):
        if [k.key for k in path[-2:]] != ["qkv", "bias"]:
            return x
        return np.delete(x, 1, axis=-3)  # [layers 3 A E]

    return jax.tree_util.tree_map_with_path(leaf, params)


def assert_same(ours, theirs):
    """Losses and parameters to 1e-5."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, *(without_key_bias(x[1]) for x in (ours, theirs)))


def test_eight_devices_are_one(tiny, one):
    name, *alone = one
    assert_same(run(tiny, name, EIGHT), alone)


@pytest.mark.parametrize("one", ["mae"], indirect=True)
def test_eight_devices_that_share_nothing_but_moments_are_one(tiny, one):
    name, *alone = one
    assert_same(run(tiny, name, DATA), alone)


def test_two_micro_batches_are_one(tiny, one):
    name, *alone = one
    assert_same(run(tiny, name, ONE, accum=2), alone)


def test_a_run_learns_and_compiles_once(one):
    _, history, _, program = one
    assert np.isfinite(history).all()
    assert program.step.__wrapped__._cache_size() == 1
    assert program.init.__wrapped__._cache_size() == 1


@pytest.fixture(scope="module")
def sharded(tiny):
    """A program on eight devices, with micro-batches, in bfloat16."""
    mesh = partition.make_mesh(EIGHT)
    method = method_of(tiny, "ijepa", dtype="bfloat16")
    numbers = {"batch_size": BATCH, "size": SIZE, "accum": 2}
    return step.make_program(method, tiny.optimizer(), mesh, **numbers), mesh


def test_state_is_donated_and_keeps_its_layout(tiny, sharded):
    program, mesh = sharded
    state = program.init(KEY)
    layout = jax.tree.map(lambda x: x.sharding, program.state)
    assert jax.tree.map(lambda x: x.sharding, state) == layout
    batch = step.put_batch(tiny.bytes(BATCH), mesh)
    new, metrics = program.step(state, batch, KEY)
    assert jax.tree.map(lambda x: x.sharding, new) == layout
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not any(x.is_deleted() for x in jax.tree.leaves(batch))
    assert int(new.step) == 1 and np.isfinite(metrics["train/loss"])


def test_every_device_keeps_its_own_part_of_the_moments(tiny):
    """Weights are whole on all eight, as the mesh says; of moments each has 1/8."""
    mesh = partition.make_mesh(DATA)
    numbers = {"batch_size": BATCH, "size": SIZE, "accum": 1}
    method = method_of(tiny, "mae")
    program = step.make_program(method, tiny.optimizer(), mesh, **numbers)
    state = program.init(KEY)

    def kernels(tree):
        """The devices' parts of each layer's MLP: `[2 32 128]`."""
        found = jax.tree_util.tree_leaves_with_path(tree)
        for path, x in found:
            names = [getattr(k, "key", getattr(k, "name", "")) for k in path]
            if names[-2:] == ["up", "kernel"] and "encoder" in names:
                yield [shard.data.shape for shard in x.addressable_shards]

    assert list(kernels(state.params)) == [[(2, 32, 128)] * 8]
    assert list(kernels(state.opt_state)) == [[(2, 32, 16)] * 8] * 2  # mu and nu


def test_under_bfloat16_all_state_and_metrics_are_float32(sharded):
    program, mesh = sharded
    with jax.set_mesh(mesh):
        _, metrics = jax.eval_shape(
            program.step.__wrapped__, program.state, program.batch, KEY
        )
    names = {x.dtype.name for x in jax.tree.leaves((program.state, metrics))}
    assert names == {"float32", "int32"}
    counters = [x for x in jax.tree.leaves(program.state) if x.dtype == jnp.int32]
    assert all(x.shape == () for x in counters)


class Scale(nn.Module):
    """One weight."""

    @nn.compact
    def __call__(self, views, train):
        return self.param("w", nn.initializers.ones, ()) * views["image"]


def test_targets_carry_no_gradient(tiny):
    """Not even into the teacher, on which they depend."""
    method = methods.Method(
        model=Scale(),
        make_views=lambda key, batch: batch,
        make_targets=lambda ema, views, step: ema["w"] * views["image"],
        loss_fn=lambda outputs, targets: (jnp.mean((outputs - targets) ** 2), {}),
        init_ema=lambda params: {"w": 2 * params["w"]},
    )
    parts = {"method": method, "optimizer": tiny.optimizer()}
    batch = tiny.bytes(2)
    state = step.init_state(KEY, batch, **parts)

    def loss(w):
        after = state.replace(ema={"w": w})
        return step.train_step(after, batch, KEY, accum=1, **parts)[1]["train/loss"]

    assert loss(jnp.float32(3.0)) != loss(jnp.float32(2.0))
    assert jax.grad(loss)(jnp.float32(3.0)) == 0


def test_micro_batches_are_strided_and_averaged():
    seen = []

    def micro_step(views, key):
        seen.append(views["x"].shape)
        x = views["x"]
        return (x.sum(), {"first": x[0]}), {"w": 2 * x.sum()}, x

    views = {"x": jnp.arange(6.0)}
    (loss, metrics), grads, targets = step.accumulate(micro_step, views, KEY, 3)
    # Micro-batches {0, 3}, {1, 4}, {2, 5}: sums 3, 5, 7.
    assert loss == 5 and metrics["first"] == 1 and grads["w"] == 10
    np.testing.assert_array_equal(targets, views["x"])
    assert set(seen) == {(2,)}


def test_bytes_become_floats():
    batch = {"image": np.full((1, 2, 2, 3), 51, np.uint8), "label": np.array([3])}
    out = step.prepare(batch)
    np.testing.assert_allclose(out["image"], 0.2, rtol=1e-6)
    assert out["label"] == 3
