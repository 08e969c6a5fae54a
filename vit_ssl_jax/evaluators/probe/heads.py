"""Linear heads on frozen features: a whole grid of them in one step, as pure functions.

The grid is readouts x batch normalisation x (learning rates x weight decays). Heads of
one readout and normalisation are a group; their parameters carry a leading axis H. A
head's course depends on nothing but its own numbers, so it is that of the head trained
alone.

b batch, F features of a readout, C classes.
"""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_ssl_jax import optim
from vit_ssl_jax.ops import batchnorm

EPS, MOMENTUM = 1e-6, 0.1  # of batch normalisation, as in MAE's probe
STD = 0.01  # of the kernels at the start: MAE, DINO, DINOv2


@flax.struct.dataclass
class ProbeState:
    """All heads of a grid, by group."""

    step: jax.Array  # int32, steps done
    heads: Any  # kernel [H F C], bias [H C]
    opt_state: Any  # of each head
    stats: Any  # running mean and variance [F] of groups with batch normalisation


def init(config, widths, classes):
    """The state before any step; `widths` is `{readout: F}`.

    Heads of the same width start alike, whatever else is in the grid.
    """
    key, count = jax.random.key(config.seed), len(config.grid[0])
    state = ProbeState(jnp.zeros((), jnp.int32), {}, {}, {})
    for group, (readout, norm) in config.groups.items():
        kernel = STD * jax.random.normal(key, (widths[readout], classes))
        head = {"kernel": kernel, "bias": jnp.zeros(classes)}
        heads = jax.tree.map(lambda x: jnp.stack([x] * count), head)
        state.heads[group] = heads
        rule = make_rule(config, lambda step: 0.0, 0.0)
        state.opt_state[group] = jax.vmap(rule.init)(heads)
        if norm:
            zeros = jnp.zeros(widths[readout])
            state.stats[group] = {"mean": zeros, "variance": zeros + 1.0}
    return state


def make_rule(config, rate, decay):
    """The optimiser of one head: `rate` a function of the step, `decay` a number."""
    no_decay = () if config.decay_bias else ("bias",)
    settings = dict(momentum=config.momentum, no_decay=no_decay)
    if config.optimizer == "sgd":
        return optim.sgd(rate, lambda step: decay, nesterov=config.nesterov, **settings)
    return optim.lars(rate, lambda step: decay, **settings)


def make_schedule(config, epoch_steps):
    """Makes `step -> factor` of the peak rate; a warm-up's first update has rate 0.

    "cosine" falls to `rate_end`, "step" to a tenth every `step_epochs` and "milestones"
    at each of its epochs. A rate changes with the step: VISSL's cosine does by the epoch.
    """
    warmup = config.warmup_epochs * epoch_steps
    if config.schedule == "cosine":
        total = round(config.epochs * epoch_steps)
        numbers = dict(start=0.0, peak=1.0, warmup=warmup, total=total)
        numbers["end"] = config.rate_end
        return functools.partial(optim.warmup_cosine, **numbers)

    def tenths(step):
        if config.schedule == "step":
            passed = step // (config.step_epochs * epoch_steps)
        else:
            ends = np.array(config.milestones) * epoch_steps
            passed = (step >= jnp.asarray(ends, jnp.float32)).sum()
        return jnp.where(step < warmup, step / (warmup or 1), 0.1**passed)

    return tenths


def learn(config, factor, state, features, labels):
    """One step of every head: `{readout: [b F]}, [b] -> state, {group: loss [H]}`.

    `factor` is `make_schedule`'s; `normalize_groups` says by what is normalised.
    """
    rates, decays = config.grid

    def learn_one(head, opt_state, rate, decay, x):
        def loss_fn(head):
            losses = optax.softmax_cross_entropy_with_integer_labels(
                apply(head, x), labels
            )
            return losses.mean()

        loss, grads = jax.value_and_grad(loss_fn)(head)
        rule = make_rule(config, lambda step: rate * factor(step), decay)
        updates, opt_state = rule.update(grads, opt_state, head, step=state.step)
        return optax.apply_updates(head, updates), opt_state, loss

    heads, opt_states, stats, losses = {}, {}, {}, {}
    for group, (readout, norm) in config.groups.items():
        x = features[readout]
        if norm:
            x, mean, variance = normalize_groups(x, config.norm_group)
            new = {"mean": mean, "variance": variance}
            stats[group] = jax.tree.map(
                lambda a, b: batchnorm.running(a, b, MOMENTUM), state.stats[group], new
            )
        heads[group], opt_states[group], losses[group] = jax.vmap(
            learn_one, in_axes=(0, 0, 0, 0, None)
        )(state.heads[group], state.opt_state[group], rates, decays, x)
    return ProbeState(state.step + 1, heads, opt_states, stats), losses


def normalize_groups(x, group):
    """Batch normalisation by each `group` images: `[b F] -> [b F], mean [F], variance [F]`.

    Groups are neighbours in the batch; 0, or no more images than that, is one group. The
    statistics, for the running ones, are those of the first: MAE's code normalises by the
    512 images of a GPU, and torch's DistributedDataParallel gives the first GPU's running
    statistics to all before every forward pass, so that the others' are lost.
    """
    if not 0 < group < len(x):
        return batchnorm.batch_norm(x, EPS)
    groups = x.reshape(-1, group, x.shape[-1])
    out, means, variances = jax.vmap(lambda one: batchnorm.batch_norm(one, EPS))(groups)
    return out.reshape(x.shape), means[0], variances[0]


def apply(head, x):
    """Logits of one head in float32: `[b F] -> [b C]`."""
    return jnp.dot(x, head["kernel"], precision="highest") + head["bias"][None]


def rank(config, state, features, best):
    """The `best` likeliest classes, likeliest first: `{group: [H b best]}`."""
    out = {}
    for group, heads in state.heads.items():
        readout, norm = config.groups[group]
        x = features[readout]
        if norm:
            stats = state.stats[group]
            x = batchnorm.standardize(x, stats["mean"], stats["variance"], EPS)
        logits = jax.vmap(apply, in_axes=(0, None))(heads, x)
        out[group] = jax.lax.top_k(logits, min(best, logits.shape[-1]))[1]
    return out
