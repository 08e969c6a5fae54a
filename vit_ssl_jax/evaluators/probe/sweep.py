"""The grid of a linear probe: which heads, how they learn, what they are called.

Readouts x batch normalisation x (learning rates x weight decays).
"""

import dataclasses

import numpy as np

from vit_ssl_jax.checks import MIN_ONE, MIN_ZERO, POSITIVE, SHARE, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Numbers of a grid and of its training."""

    readouts: tuple  # of (layers, pool), see models.readouts
    batch_norm: tuple  # of bool: heads with, without, or both
    norm_group: int  # images that are normalized together; 0: the whole batch
    optimizer: str  # "lars" or "sgd"
    momentum: float  # of the optimizer
    nesterov: bool  # momentum that looks ahead; of "sgd"
    rates: tuple  # peak learning rates
    rate_batch: int  # images that a rate is meant for (linear rule); 0: any batch
    decays: tuple  # weight decays
    decay_bias: bool  # of the biases too, or of the kernels alone
    schedule: str  # "cosine", "step" or "milestones", see `make_schedule`
    step_epochs: float  # of "step": epochs between two falls of the rate
    milestones: tuple  # of "milestones": epochs, in order
    rate_end: float  # of "cosine": what it ends at, as a share of the peak
    warmup_epochs: float  # linear from zero
    epochs: float  # passes over the images
    epoch_steps: int  # steps that count as an epoch; 0: images // batch_size
    batch_size: int  # images a step
    accum: int  # pieces in which a batch goes through the encoder
    augment: bool  # augmented images through the encoder; False: cached features
    checkpoint_every: int  # steps
    seed: int  # of the heads' start and the order of cached features

    def __post_init__(self):
        readouts = tuple((int(count), how) for count, how in self.readouts)
        object.__setattr__(self, "readouts", readouts)
        for key in ("batch_norm", "rates", "decays", "milestones"):
            object.__setattr__(self, key, tuple(getattr(self, key)))

    @property
    def groups(self):
        """Groups of heads: `{name: (readout, batch_norm)}`."""
        by = f"_bn{self.norm_group or ''}"
        return {
            f"last{readout[0]}_{readout[1]}" + by * bool(norm): (readout, norm)
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
        when = {
            "step": f"{self.step_epochs:g}",
            "milestones": "-".join(f"{epoch:g}" for epoch in self.milestones),
            "cosine": f"{self.rate_end:g}" if self.rate_end else "",
        }[self.schedule]
        course = f"{self.schedule}{when}{warm}_ep{self.epochs:g}_b{self.batch_size}"
        course += f"_steps{self.epoch_steps}" if self.epoch_steps else ""
        course += ("_aug" if self.augment else "_cached") + f"_seed{self.seed}"
        rule = f"{group}_{self.optimizer}{self.momentum:g}"
        rule += "_nesterov" * self.nesterov + "_wdbias" * self.decay_bias
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
    "norm_group": MIN_ZERO,
    "rates": _listed("rates above 0", lambda x: x > 0),
    "rate_batch": MIN_ZERO,
    "decays": _listed("decays of at least 0", lambda x: x >= 0),
    "schedule": one_of("cosine", "step", "milestones"),
    "step_epochs": MIN_ZERO,
    "milestones": (
        "a tuple of epochs above 0, in order",
        lambda x: tuple(sorted(set(x))) == tuple(x) and min(x, default=1) > 0,
    ),
    "rate_end": SHARE,
    "warmup_epochs": MIN_ZERO,
    "epochs": POSITIVE,
    "epoch_steps": MIN_ZERO,
    "batch_size": MIN_ONE,
    "accum": MIN_ONE,
    "checkpoint_every": MIN_ONE,
}
