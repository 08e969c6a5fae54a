"""The train step, the same for all methods, and its state."""

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_ssl_jax import partition, skipping
from vit_ssl_jax.accumulation import accumulate
from vit_ssl_jax.methods import Method
from vit_ssl_jax.ops import images
from vit_ssl_jax.optim import Optimizer
from vit_ssl_jax.xla.options import choose_options


@flax.struct.dataclass
class TrainState:
    """All that a run needs to go on. No rng: keys are `fold_in(seed, step)`."""

    step: jax.Array  # int32, optimiser steps done
    params: Any
    opt_state: Any
    ema: Any
    # Of `evaluators.online`, which the step leaves alone; {}: none.
    probe: Any = flax.struct.field(default_factory=dict)
    # Of `skipping`, {} where no step is left out.
    skips: Any = flax.struct.field(default_factory=dict)


def init_state(key, batch, *, method: Method, optimizer: Optimizer):
    """A fresh state for batches like `batch`."""
    params, ema = init_model(key, batch, method=method)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.tx.init(params),
        ema=ema,
    )


def init_model(key, batch, *, method: Method):
    """What a model starts with, for batches like `batch`: `(params, ema)`."""
    views = method.make_views(key, prepare(batch))
    params = method.model.init({"params": key}, views, False)["params"]
    return params, jax.tree.map(jnp.copy, method.init_ema(params))


def prepare(batch):
    """Bytes to floats: `image uint8 [B H W C] -> float32` in [0, 1]."""
    return {**batch, "image": images.to_float(batch["image"])}


def train_step(state, batch, key, *, method: Method, optimizer: Optimizer, accum: int):
    """One optimiser step on `{image uint8 [B H W 3], label [B], id [B]}`.

    With `accum > 1` the gradient is the mean over that many micro-batches, which share
    what the method draws once a step. Returns the new state and scalar metrics.
    """
    views_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    with jax.named_scope("views"):
        views = method.make_views(views_key, prepare(batch))

    def micro_step(views, dropout_key):
        targets = method.make_targets(state.ema, views, state.step)
        targets = jax.lax.stop_gradient(targets)

        def loss_fn(params):
            params = {"params": optimizer.guard(params)}
            rngs = {"dropout": dropout_key}
            outputs = method.model.apply(params, views, True, rngs=rngs)
            return method.loss_fn(outputs, targets)

        out, grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return out, grads, targets

    (loss, metrics), grads, targets = accumulate(micro_step, views, dropout_key, accum)
    with jax.named_scope("optimizer"):
        updates, opt_state = optimizer.tx.update(
            grads, state.opt_state, state.params, step=state.step
        )
        params = optax.apply_updates(state.params, updates)
    with jax.named_scope("ema"):
        ema = method.update_ema(state.ema, params, targets, state.step)
    metrics = {
        **{k if "/" in k else f"train/{k}": v for k, v in metrics.items()},
        **{f"train/{k}": f(state.step) for k, f in optimizer.schedules.items()},
        "train/loss": loss,  # the objective's loss on this step's batch
        "train/grad_norm": optax.tree.norm(
            grads
        ),  # the gradient's norm before clipping
    }
    state = state.replace(
        step=state.step + 1, params=params, opt_state=opt_state, ema=ema
    )
    return state, metrics


@flax.struct.dataclass
class Program:
    """The compiled functions of a run and the shapes of its state."""

    init: Callable = flax.struct.field(pytree_node=False)  # (key) -> state
    step: Callable = flax.struct.field(pytree_node=False)  # (state, batch, key)
    plain_step: Callable = flax.struct.field(pytree_node=False)  # without a mesh
    state: Any  # ShapeDtypeStructs with shardings
    batch: Any  # the same for a batch
    replicated: Any = flax.struct.field(pytree_node=False)  # sharding of the key


def batch_shapes(batch_size, size, sharding):
    """Shapes of the batch `{image uint8 [B H W 3], label int32 [B], id int32 [B]}`."""
    shapes = {"image": (batch_size, *size, 3), "label": (batch_size,)}
    shapes["id"] = shapes["label"]
    return {
        name: jax.ShapeDtypeStruct(
            shape, jnp.uint8 if name == "image" else jnp.int32, sharding=sharding
        )
        for name, shape in shapes.items()
    }


def make_program(method, optimizer, mesh, *, batch_size, size, accum, rules=None):
    """Jits `init` and `step` over the mesh, the state sharded and donated.

    rules: `skipping.Rules` of the steps that are left out; None: none is.
    """
    batch = batch_shapes(batch_size, size, partition.batch_sharding(mesh))
    bound = dict(method=method, optimizer=optimizer)

    def init(key):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)
        state = init_state(key, zeros, **bound)
        return state.replace(skips=skipping.fresh()) if rules else state

    def step(state, batch, key):
        after, metrics = train_step(state, batch, key, accum=accum, **bound)
        if rules:
            return skipping.leave_out(rules, state, after, metrics)
        return after, metrics

    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(init, key_shape())
    layout = partition.state_shardings(shapes, mesh)
    state = partition.laid_out(shapes, layout)
    return Program(
        init=with_mesh(jax.jit(init, out_shardings=layout), mesh),
        step=jit_step(step, mesh, state, batch),
        plain_step=step,
        state=state,
        batch=batch,
        replicated=partition.replicated(mesh),
    )


def jit_step(step, mesh, state, batch, more=()):
    """Jits step for shapes with shardings, the state donated; `more`: of further results."""
    layout, fed = jax.tree.map(lambda x: x.sharding, (state, batch))
    whole = partition.replicated(mesh)
    jitted = functools.partial(
        jax.jit,
        step,
        in_shardings=(layout, fed, whole),
        out_shardings=(layout, whole, *more),
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        options = choose_options(jitted(), mesh, state, batch, key_shape(whole))
    return with_mesh(jitted(compiler_options=options), mesh)


def with_mesh(function, mesh):
    """A jitted function that knows the mesh when it is traced; `.lower` too."""

    @functools.wraps(function)
    def call(*args):
        with jax.set_mesh(mesh):
            return function(*args)

    def lower(*args):
        with jax.set_mesh(mesh):
            return function.lower(*args)

    call.lower = lower
    return call


def lower(program):
    """The step of a `Program` lowered for its own shapes: `.compile()` needs no data."""
    shapes = program.state, program.batch, key_shape(program.replicated)
    return program.step.lower(*shapes)


def key_shape(sharding=None):
    """Shape of the run's key; nothing runs, for a topology's mesh can't."""
    key = jax.eval_shape(jax.random.key, 0)
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding)


def put_batch(batch, mesh):
    """Sends this process's share of a batch (numpy) to the devices."""
    sharding = partition.batch_sharding(mesh)

    def leaf(x):
        x = np.asarray(x)
        whole = (len(x) * jax.process_count(), *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, whole)

    return jax.tree.map(leaf, batch)


def take(tree, count, mesh):
    """The first examples of every device's share, `count` in all: `[B ...] -> [n ...]`.

    So nothing moves between devices. `count` divides by the devices that B is split
    over, as B does.
    """
    ways = partition.ways(mesh)

    def leaf(x):
        shares = x.reshape(ways, len(x) // ways, *x.shape[1:])[:, : count // ways]
        return partition.pin_batch(shares.reshape(count, *x.shape[1:]))

    return jax.tree.map(leaf, tree)
