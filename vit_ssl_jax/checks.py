"""Values of a config that can't work, found before anything is built."""

import math

from vit_ssl_jax.errors import UserError

MIN_ONE = "at least 1", lambda x: x >= 1
MIN_ZERO = "a finite number, at least 0", lambda x: math.isfinite(x) and x >= 0
POSITIVE = "a finite number above 0", lambda x: math.isfinite(x) and x > 0
SIZES = "a tuple of numbers of at least 1", lambda x: len(x) > 0 and min(x) >= 1

RANGES = {
    "seed": ("from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32),
    "batch_size": MIN_ONE,
    "accum": MIN_ONE,
    "epochs": POSITIVE,
    "steps": ("at least 0 (0: by epochs)", lambda x: x >= 0),
    "log_every": MIN_ONE,
    "checkpoint_every": MIN_ONE,
    "keep": MIN_ONE,
    "vit.droppath": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "vit.dropout": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "vit.norm_eps": POSITIVE,
    "optim.lr": MIN_ZERO,
    "optim.lr_batch": MIN_ZERO,
    "optim.warmup_epochs": MIN_ZERO,
    "optim.ipe_scale": POSITIVE,
    "optim.clip": MIN_ZERO,
    "optim.layer_decay": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "data.size": (
        "'(height, width)' in pixels",
        lambda x: len(x) == 2 and min(x) >= 1,
    ),
    "data.crop": (
        "'(smallest, largest)' share of the image, or '()' for none",
        lambda x: len(x) == 0 or (len(x) == 2 and 0 < x[0] <= x[1] <= 1),
    ),
    "data.ratio": (
        "'(smallest, largest)' width / height",
        lambda x: len(x) == 2 and 0 < x[0] <= x[1],
    ),
    "data.pad": ("at least 0 (pixels)", lambda x: x >= 0),
    "data.interpolation": (
        "'bicubic' or 'bilinear'",
        lambda x: x in ("bicubic", "bilinear"),
    ),
    "data.resize": MIN_ONE,
    "data.train_resize": ("at least 0 (pixels; 0: as in evaluation)", lambda x: x >= 0),
    "data.mean": ("three numbers", lambda x: len(x) == 3),
    "data.std": (
        "three numbers above 0",
        lambda x: len(x) == 3 and min(x) > 0,
    ),
    "data.threads": ("at least 0 (0: by the number of cores)", lambda x: x >= 0),
    "data.eval_batch_size": MIN_ONE,
    "online.share": ("from 0 to 1 (0: off)", lambda x: 0 <= x <= 1),
    "online.lr": MIN_ZERO,
    "online.queue": MIN_ONE,
    "online.k": MIN_ONE,
    "online.temperature": POSITIVE,
    "health.every": ("at least 0 (0: never)", lambda x: x >= 0),
    "health.images": ("at least 2", lambda x: x >= 2),
    "health.policy": ("'warn' or 'stop'", lambda x: x in ("warn", "stop")),
}
OF_EVALUATORS = {
    "pool": ("'cls' or 'mean'", lambda x: x in ("cls", "mean")),
    "k": SIZES,
    "temperature": POSITIVE,
    "c": POSITIVE,
    "iterations": MIN_ONE,
    "shots": SIZES,
    "seeds": ("a tuple of seeds, at least one", lambda x: len(x) > 0 and min(x) >= 0),
    "ridge": POSITIVE,
    "metric": (
        "'top1' or 'mean_per_class'",
        lambda x: x in ("top1", "mean_per_class"),
    ),
}


def check_ranges(config):
    """Raises UserError for the first value of a ConfigDict that is out of its range."""
    for key, (wanted, fits) in RANGES.items():
        value = config
        for name in key.split("."):
            value = value[name]
        _check(f"config.{key}", value, wanted, fits)
    check_evaluators(config.evals, config.vit.cls)


def check_evaluators(evals, cls):
    """The same of `config.evals`; `cls`: whether the ViT has a class token."""
    for name, settings in evals.items():
        for key, (wanted, fits) in OF_EVALUATORS.items():
            if key in settings:
                _check(f"config.evals.{name}.{key}", settings[key], wanted, fits)
        if settings.get("pool") == "cls" and not cls:
            raise UserError(
                f"config.evals.{name}.pool: 'cls' needs config.vit.cls=True; use 'mean'"
            )


def _check(key, value, wanted, fits):
    if not fits(value):
        raise UserError(f"{key}: {value!r} is not {wanted}")
