"""Schedules as functions of the step, and the optimiser."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.errors import UserError


def warmup_cosine(step, *, start, peak, end, warmup, total, offset=0):
    """Linear from `start` to `peak` in `warmup` steps, then half a cosine to `end`.

    `t = step + offset`: MAE counts from 0 (`offset=0`, its first update has rate 0),
    I-JEPA from 1. Written with sin^2 of the part that is left, so float32 is exact
    to rounding near the end too.
    """
    t = jnp.asarray(step, float) + offset
    left = jnp.clip((total - t) / max(total - warmup, 1), 0.0, 1.0)
    cosine = end + (peak - end) * jnp.sin(0.5 * jnp.pi * left) ** 2
    ramp = start + (peak - start) * t / (warmup or 1)
    return jnp.where(t < warmup, ramp, cosine)


def adamw(learning_rate, weight_decay, *, b1, b2, eps, no_decay):
    """AdamW (Loshchilov & Hutter, 2019) whose rate and decay are functions of `step`.

    `update(grads, state, params, step=...)`. Parameters whose last name is in
    `no_decay` aren't decayed: by name, never by rank, for scanned biases are matrices.
    Moments are float32.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def update(grads, state, params, *, step):
        updates, state = adam.update(grads, state, params)
        rate, decay = learning_rate(step), weight_decay(step)

        def leaf(path, update, param):
            if path[-1].key in no_decay:
                return (-rate * update).astype(param.dtype)
            return (-rate * (update + decay * param)).astype(param.dtype)

        return jax.tree_util.tree_map_with_path(leaf, updates, params), state

    return optax.GradientTransformationExtraArgs(adam.init, update)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A gradient transformation and the schedules that it follows."""

    tx: optax.GradientTransformationExtraArgs
    schedules: dict[str, Callable]  # name -> function of the step, logged


def peak_rate(config, batch_size):
    """The peak learning rate: linear in the batch where `lr_batch` is given (not 0)."""
    return config.lr * batch_size / config.lr_batch if config.lr_batch else config.lr


def make_optimizer(config, *, steps, epochs, batch_size):
    """Builds the optimiser of `config.optim` for a run of `steps` steps.

    Warm-up takes the same share of the run as `warmup_epochs` of `epochs`, so a
    shortened run keeps the schedule's shape.
    """
    if config.name != "adamw":
        raise UserError(f"config.optim.name: {config.name!r} is not one of adamw")
    total = int(config.ipe_scale * steps)
    warmup = min(steps * config.warmup_epochs / epochs, steps)
    if config.first_step:
        warmup = int(warmup)  # I-JEPA counts whole steps, MAE fractions of an epoch
    rate = functools.partial(
        warmup_cosine,
        start=config.lr_start,
        peak=peak_rate(config, batch_size),
        end=config.lr_end,
        warmup=warmup,
        total=total,
        offset=config.first_step,
    )
    decay = functools.partial(
        warmup_cosine,
        start=config.wd,
        peak=config.wd,
        end=config.wd_end,
        warmup=0,
        total=total,
        offset=config.first_step,
    )
    tx = adamw(
        rate,
        decay,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        no_decay=tuple(config.no_decay),
    )
    if config.clip:
        tx = optax.chain(optax.clip_by_global_norm(config.clip), tx)
    return Optimizer(tx, {"lr": rate, "weight_decay": decay})
