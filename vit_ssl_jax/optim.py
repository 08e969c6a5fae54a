"""Schedules as functions of the step, and the optimisers."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax import clipping
from vit_ssl_jax.errors import check_choice


def warmup_cosine(step, *, start, peak, end, warmup, total, offset=0):
    """Linear from `start` to `peak` in `warmup` steps, then half a cosine to `end`.

    `t = step + offset`: MAE counts from 0 (`offset=0`, its first update has rate 0),
    I-JEPA from 1. Written with sin^2 of the part that is left, so float32 is exact
    to rounding near the end too.
    """
    t = jnp.asarray(step, float) + offset
    weight = jnp.sin(0.5 * jnp.pi * _left(t, warmup, total)) ** 2
    return _ramp_then(weight, t, start=start, peak=peak, end=end, warmup=warmup)


def warmup_linear(step, *, start, peak, end, warmup, total, offset=0):
    """Linear from `start` to `peak`, then linear to `end` (ViT, 2021, table 3)."""
    t = jnp.asarray(step, float) + offset
    weight = _left(t, warmup, total)
    return _ramp_then(weight, t, start=start, peak=peak, end=end, warmup=warmup)


def quarter_cosine(step, *, start, peak, end, warmup, total, offset=0):
    """Linear from `start` to `peak`, then the cosine of a quarter turn (RelViT's code).

    The quarter turn is measured from step 0, so the rate drops a little at the end of
    warm-up; it is flat at first and steep at the end.
    """
    t = jnp.asarray(step, float) + offset
    weight = jnp.cos(jnp.clip(t / total, 0.0, 1.0) * jnp.pi / 2)
    return _ramp_then(weight, t, start=start, peak=peak, end=end, warmup=warmup)


def _left(t, warmup, total):
    """The part of the time after warm-up that is left, 1 to 0."""
    return jnp.clip((total - t) / max(total - warmup, 1), 0.0, 1.0)


def _ramp_then(weight, t, *, start, peak, end, warmup):
    """Linear to `peak` in `warmup` steps, then `weight` of the way from `end` to it."""
    ramp = start + (peak - start) * t / (warmup or 1)
    return jnp.where(t < warmup, ramp, end + (peak - end) * weight)


RULES = ("adamw", "sgd", "lars")
SCHEDULES = {
    "cosine": warmup_cosine,
    "linear": warmup_linear,
    "quarter_cosine": quarter_cosine,
}


def add_decay(updates, params, decay, no_decay):
    """Adds `decay` times every parameter whose last name isn't in `no_decay`.

    By name, never by rank, for scanned biases are matrices.
    """

    def leaf(path, update, param):
        return update if path[-1].key in no_decay else update + decay * param

    return jax.tree_util.tree_map_with_path(leaf, updates, params)


def descend(updates, rate):
    """A step of `rate` down: each leaf `-rate` times itself."""
    return jax.tree.map(lambda x: (-rate * x).astype(x.dtype), updates)


def adamw(learning_rate, weight_decay, *, b1, b2, eps, no_decay, frozen=()):
    """AdamW (Loshchilov & Hutter, 2019) whose rate and decay are functions of `step`.

    `update(grads, state, params, step=...)`. Parameters named in `no_decay` aren't
    decayed. Moments are float32. `frozen`: see `clipping.thaw`.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def update(grads, state, params, *, step):
        updates, state = adam.update(grads, state, params)
        updates = clipping.thaw(updates, state.count, frozen, b1, b2)
        updates = add_decay(updates, params, weight_decay(step), no_decay)
        return descend(updates, learning_rate(step)), state

    return optax.GradientTransformationExtraArgs(adam.init, update)


def sgd(learning_rate, weight_decay, *, momentum, no_decay, nesterov=False):
    """SGD with momentum, the form of torch and optax.

    `m = momentum m + (g + wd w)`, `w -= rate m`, with Nesterov's
    `w -= rate (momentum m + g + wd w)`; names in `no_decay` aren't decayed. The transfer
    recipe of ViT (2021, B.1.1), without decay; its code keeps `m` in bfloat16, here it is
    float32.
    """
    buffer = optax.trace(momentum, nesterov)

    def update(grads, state, params, *, step):
        grads = add_decay(grads, params, weight_decay(step), no_decay)
        updates, state = buffer.update(grads, state, params)
        return descend(updates, learning_rate(step)), state

    return optax.GradientTransformationExtraArgs(buffer.init, update)


def lars(learning_rate, weight_decay, *, momentum, no_decay, trust=0.001):
    """LARS as MAE's linear probe has it: the rate is outside the momentum buffer.

    `m = momentum m + q (g + wd w)`, `w -= rate m`, with the trust ratio
    `q = trust |w| / |g + wd w|`, 1 where a norm is 0. Parameters whose last name is in
    `no_decay` get neither decay nor trust ratio.
    """

    def chosen(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: path[-1].key not in no_decay, tree
        )

    scaled = optax.chain(
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust), chosen),
        optax.trace(momentum),
    )

    def update(grads, state, params, *, step):
        grads = add_decay(grads, params, weight_decay(step), no_decay)
        updates, state = scaled.update(grads, state, params)
        return descend(updates, learning_rate(step)), state

    return optax.GradientTransformationExtraArgs(scaled.init, update)


def layer_factors(decay, depth):
    """Factor of the rate of layers 0 to L + 1, `decay ** (L + 1 - layer)`: a list.

    Layer 0 is what stands before the encoder's blocks (patch embedding, tokens,
    positions), block i is layer i + 1, all else layer L + 1 (BEiT's and MAE's rule).
    """
    return [decay ** (depth + 1 - layer) for layer in range(depth + 2)]


def describe_layers(decay, depth, peak):
    """One line: the peak learning rate of every layer of an encoder of `depth` blocks."""
    first, *blocks, last = (f"{peak * f:.3g}" for f in layer_factors(decay, depth))
    blocks = " ".join(blocks)
    return f"peak rates by layer: embedding {first}, blocks {blocks}, head {last}"


def layer_scale(path, shape, decay, depth):
    """A parameter's one of `layer_factors`; scanned blocks get an array `[L 1 ...]`."""
    names = [key.key for key in path]
    if names[:2] == ["encoder", "blocks"]:
        scale = decay ** (depth - jnp.arange(depth, dtype=float))
        return scale.reshape(-1, *(1,) * (len(shape) - 1))
    first = names[0] == "encoder" and names[1] != "norm"
    return decay ** (depth + 1) if first or names == ["mask_token"] else 1.0


def scale_layers(tx, decay):
    """Multiplies any optimiser's updates by the factors of their layers.

    The end of the schedule and weight decay with them, as in MAE's fine-tuning.
    """

    def update(grads, state, params, *, step):
        updates, state = tx.update(grads, state, params, step=step)
        depth = max(map(len, jax.tree.leaves(params["encoder"]["blocks"])), default=0)
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, x: layer_scale(path, x.shape, decay, depth) * x, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A gradient transformation and the schedules that it follows."""

    tx: optax.GradientTransformationExtraArgs
    schedules: dict[str, Callable]  # name -> function of the step, logged
    guard: Callable = lambda params: params  # what the loss sees, see `freezing`


def peak_rate(config, batch_size):
    """The peak learning rate: linear in the batch where `lr_batch` is given (not 0)."""
    return config.lr * batch_size / config.lr_batch if config.lr_batch else config.lr


def make_optimizer(config, *, steps, epochs, batch_size, frozen=()):
    """Builds the optimiser of `config.optim` for a run of `steps` steps.

    Warm-up takes the same share of the run as `warmup_epochs` of `epochs`, so a
    shortened run keeps the schedule's shape. `frozen`: as in `clipping.freeze`.
    """
    check_choice("config.optim.schedule", config.schedule, SCHEDULES)
    total = int(config.ipe_scale * steps)
    warmup = min(steps * config.warmup_epochs / epochs, steps)
    if config.first_step or config.schedule == "quarter_cosine":
        # I-JEPA and RelViT count whole steps, MAE fractions of an epoch.
        warmup = int(warmup + 1e-6)
    rate = functools.partial(
        SCHEDULES[config.schedule],
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
    tx = make_transformation(config, rate, decay, frozen)
    if config.layer_decay != 1.0:
        tx = scale_layers(tx, config.layer_decay)
    tx = clipping.surround(tx, config, frozen)
    schedules = {
        "lr": rate,  # the learning rate
        "weight_decay": decay,  # AdamW's (times the rate), or what gradients get
    }
    return Optimizer(tx, schedules)


def make_transformation(config, rate, decay, frozen=()):
    """The update rule of `config.optim.name`; `b1` is the momentum of sgd and lars."""
    check_choice("config.optim.name", config.name, RULES)
    no_decay = tuple(config.no_decay)
    if config.name == "adamw":
        numbers = dict(b1=config.b1, b2=config.b2, eps=config.eps, frozen=frozen)
        return adamw(rate, decay, **numbers, no_decay=no_decay)
    if config.name == "sgd":
        return sgd(rate, decay, momentum=config.b1, no_decay=no_decay)
    return lars(rate, decay, momentum=config.b1, no_decay=no_decay)
