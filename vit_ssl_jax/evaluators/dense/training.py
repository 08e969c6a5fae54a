"""Trains a head on the features of a frozen encoder, step by step, resumable."""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax import optim, partition, step
from vit_ssl_jax.distributed.signals import Stopped
from vit_ssl_jax.evaluators.probe import feeds
from vit_ssl_jax.evaluators.probe import train as probing


@flax.struct.dataclass
class HeadState:
    """A head and what trains it."""

    step: jax.Array  # int32, steps done
    head: Any  # its parameters, by name
    opt_state: Any
    stats: Any  # running statistics, {}: none


def make_rate(c):
    """Makes `step -> rate` as mmcv has it: the warm-up is a factor of the schedule.

    So the rate has begun to fall when the warm-up ends.
    """

    def rate(step):
        done = jnp.asarray(step, jnp.float32) / c.steps
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        regular = cosine if c.schedule == "cosine" else 1.0 - done
        ramp = 1.0 - (1.0 - step / (c.warmup or 1)) * (1.0 - c.warmup_start)
        return c.rate * regular * jnp.where(step < c.warmup, ramp, 1.0)

    return rate


def make_rule(c):
    """AdamW with torch's numbers; every parameter decays, as there."""
    numbers = dict(b1=0.9, b2=0.999, eps=1e-8, no_decay=())
    return optim.adamw(make_rate(c), lambda step: c.decay, **numbers)


def begin(c, head, stats):
    """The state before any step."""
    return HeadState(jnp.zeros((), jnp.int32), head, make_rule(c).init(head), stats)


def descend(c, state, loss_fn):
    """A step down `loss_fn(head) -> loss, stats`: `(state, loss)`."""
    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.head)
    if c.clip:
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda x: x * jnp.minimum(1.0, c.clip / norm), grads)
    updates, opt_state = make_rule(c).update(
        grads, state.opt_state, state.head, step=state.step
    )
    head = optax.apply_updates(state.head, updates)
    return HeadState(state.step + 1, head, opt_state, stats), loss


def train(c, run, inputs, *, read, params, batches, init, learn, about):
    """The state after `c.steps` steps; `signals.Stopped` where a stop is asked for.

    `read` is `tokens.make_reader`'s, `params` the encoder's, `batches(step)` those of
    `pairs.train_batches` from a step on; `init() -> HeadState` and `learn(state,
    features [B r c F], map [B H W]) -> (state, loss)` are jitted here. With
    `inputs.folder` the head is saved there and the same call goes on at the exact step;
    the dict `about` tells a head on other images apart.
    """
    mesh, whole = run.mesh, partition.replicated(run.mesh)
    feed = feeds.Feed(batches, read, params, len(inputs.source("bank")))
    init = jax.jit(init, out_shardings=whole)

    def update(state, batch, params):
        pieces = functools.partial(read, params)
        features = feeds.in_pieces(pieces, batch["image"], c.accum)
        state, loss = learn(state, features, batch["map"])
        return state, {"head": loss[None]}

    update = jax.jit(update, out_shardings=whole, donate_argnums=0)

    def advance(state, batch):
        batch = step.put_batch(batch, mesh)
        jax.block_until_ready(state)  # no more than two batches on the devices
        with jax.set_mesh(mesh):
            return update(state, batch, params)

    if inputs.folder:
        probing.check_folder(c, feed, inputs.folder, about)
    state = probing.resume(
        inputs.folder,
        init,
        whole,
        functools.partial(
            probing.loop,
            c,
            feed,
            steps=c.steps,
            advance=advance,
            stop_requested=inputs.stop_requested,
            say=inputs.say,
            name="head",
        ),
    )
    if int(state.step) < c.steps:
        inputs.say(f"head: stopped at step {int(state.step)} of {c.steps}")
        raise Stopped
    return state


def share():
    """`(index, number)` of this process, as batches are parted."""
    return jax.process_index(), jax.process_count()
