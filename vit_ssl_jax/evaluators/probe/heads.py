"""Linear heads on frozen features: a whole grid of them in one step, as pure functions.

The grid is readouts x batch normalisation x (learning rates x weight decays). Heads of
one readout and normalisation are a group; their parameters carry a leading axis H. A
head's course depends on nothing but its own numbers, so it is that of the head trained
alone.

b batch, F features of a readout, C classes.
"""

import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_ssl_jax import optim
from vit_ssl_jax.checks import MIN_ONE, MIN_ZERO, POSITIVE, one_of
from vit_ssl_jax.ops import batchnorm

EPS, MOMENTUM = 1e-6, 0.1  # of batch normalisation, as in MAE's probe
STD = 0.01  # of the kernels at the start: MAE, DINO, DINOv2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Numbers of a grid and of its training."""

    readouts: tuple  # of (layers, pool), see models.readouts
    batch_norm: tuple  # of bool: heads with, without, or both
    optimizer: str  # "lars" or "sgd"
    momentum: float  # of the optimiser
    rates: tuple  # peak learning rates
    rate_batch: int  # images that a rate is meant for (linear rule); 0: any batch
    decays: tuple  # weight decays, of kernels only
    schedule: str  # "cosine" to zero, or "step": a tenth every step_epochs
    step_epochs: float  # of "step"
    warmup_epochs: float  # linear from zero
    epochs: float
    epoch_steps: int  # steps that count as an epoch; 0: images // batch_size
    batch_size: int
    accum: int  # pieces in which a batch goes through the encoder
    augment: bool  # augmented images through the encoder; False: cached features
    checkpoint_every: int  # steps
    seed: int  # of the heads' start and the order of cached features

    def __post_init__(self):
        readouts = tuple((int(count), how) for count, how in self.readouts)
        object.__setattr__(self, "readouts", readouts)
        for key in ("batch_norm", "rates", "decays"):
            object.__setattr__(self, key, tuple(getattr(self, key)))

    @property
    def groups(self):
        """Groups of heads: `{name: (readout, batch_norm)}`."""
        return {
            f"last{readout[0]}_{readout[1]}" + "_bn" * bool(norm): (readout, norm)
            for readout in self.readouts
            for norm in self.batch_norm
        }

    @property
    def grid(self):
        """Peak rates and weight decays of a group's heads: `[H], [H]` float32."""
        scale = self.batch_size / self.rate_batch if self.rate_batch else 1.0
        rates = np.repeat(np.array(self.rates) * scale, len(self.decays))
        decays = np.tile(np.array(self.decays), len(self.rates))
        return np.float32(rates), np.float32(decays)

    def names(self, group):
        """Names of a group's heads, with all their numbers."""
        warm = f"_warm{self.warmup_epochs:g}" if self.warmup_epochs else ""
        every = f"{self.step_epochs:g}" if self.schedule == "step" else ""
        course = f"{self.schedule}{every}{warm}_ep{self.epochs:g}_b{self.batch_size}"
        course += f"_steps{self.epoch_steps}" if self.epoch_steps else ""
        course += ("_aug" if self.augment else "_cached") + f"_seed{self.seed}"
        rule = f"{group}_{self.optimizer}{self.momentum:g}"
        return [f"{rule}_lr{r:g}_wd{d:g}_{course}" for r, d in zip(*self.grid)]


def _listed(wanted, fits=lambda x: True):
    """The range of a tuple: an entry at least, none twice, all of them `fits`."""
    return (
        f"a tuple of {wanted}, at least one and none twice",
        lambda values: (
            len(values) > 0
            and len(set(values)) == len(values)
            and all(map(fits, values))
        ),
    )


FIELDS = tuple(field.name for field in dataclasses.fields(Config))
RANGES = {
    "readouts": _listed("(layers, pool)"),
    "batch_norm": _listed("True and False"),
    "optimizer": one_of("lars", "sgd"),
    "momentum": MIN_ZERO,
    "rates": _listed("rates above 0", lambda x: x > 0),
    "rate_batch": MIN_ZERO,
    "decays": _listed("decays of at least 0", lambda x: x >= 0),
    "schedule": one_of("cosine", "step"),
    "step_epochs": MIN_ZERO,
    "warmup_epochs": MIN_ZERO,
    "epochs": POSITIVE,
    "epoch_steps": MIN_ZERO,
    "batch_size": MIN_ONE,
    "accum": MIN_ONE,
    "checkpoint_every": MIN_ONE,
}


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
    settings = dict(momentum=config.momentum, no_decay=("bias",))
    rule = {"lars": optim.lars, "sgd": optim.sgd}[config.optimizer]
    return rule(rate, lambda step: decay, **settings)


def make_schedule(config, epoch_steps):
    """Makes `step -> factor` of the peak rate; a warm-up's first update has rate 0."""
    warmup = config.warmup_epochs * epoch_steps
    if config.schedule == "cosine":
        total = round(config.epochs * epoch_steps)
        numbers = dict(start=0.0, peak=1.0, end=0.0, warmup=warmup, total=total)
        return functools.partial(optim.warmup_cosine, **numbers)

    def tenths(step):
        factor = 0.1 ** (step // (config.step_epochs * epoch_steps))
        return jnp.where(step < warmup, step / (warmup or 1), factor)

    return tenths


def learn(config, factor, state, features, labels):
    """One step of every head: `{readout: [b F]}, [b] -> state, {group: loss [H]}`.

    `factor` is `make_schedule`'s. Batch normalisation is by the whole batch (MAE's
    code: by each GPU's 512 images of it).
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
            x, mean, variance = batchnorm.batch_norm(x, EPS)
            new = {"mean": mean, "variance": variance}
            stats[group] = jax.tree.map(
                lambda a, b: batchnorm.running(a, b, MOMENTUM), state.stats[group], new
            )
        heads[group], opt_states[group], losses[group] = jax.vmap(
            learn_one, in_axes=(0, 0, 0, 0, None)
        )(state.heads[group], state.opt_state[group], rates, decays, x)
    return ProbeState(state.step + 1, heads, opt_states, stats), losses


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
