"""Values of a config that can't work, found before anything is built.

Methods and evaluators declare the ranges of their own values beside their `Config`:
`RANGES = {key: (what is wanted, whether a value is that)}`.
"""

import dataclasses
import math
import re

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.recipes import flatten


def one_of(*choices):
    """The range of a value that is one of some names."""
    names = ", ".join(name or "''" for name in choices)
    return f"one of {names}", lambda x: x in choices


def span(quantity, most=math.inf):
    """The range of two positive numbers in order, at most `most`."""
    return (
        f"'(smallest, largest)' {quantity}",
        lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= most,
    )


MIN_ONE = "at least 1", lambda x: x >= 1
SHARE = "from 0 to 1", lambda x: 0 <= x <= 1
BELOW_ONE = "at least 0 and below 1", lambda x: 0 <= x < 1
MIN_ZERO = "a finite number, at least 0", lambda x: math.isfinite(x) and x >= 0
POSITIVE = "a finite number above 0", lambda x: math.isfinite(x) and x > 0
RULE = (
    "'max METRIC' or 'min METRIC', as 'max eval/classify/top1', or '' for none",
    lambda x: not x or re.fullmatch(r"(max|min) eval/[^/ ]+/[^ ]+", x) is not None,
)
TRACK = (
    "'wandb:PROJECT' or 'mlflow:EXPERIMENT', or '' for none",
    lambda x: not x or re.fullmatch(r"(wandb|mlflow):[^:]*[^:\s/]", x) is not None,
)
NAME = "a name", lambda x: isinstance(x, str)
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
    "keep_every": MIN_ZERO,
    "keep_best": RULE,
    "track": TRACK,
    "vit.droppath": BELOW_ONE,
    "vit.dropout": BELOW_ONE,
    "vit.norm_eps": POSITIVE,
    "optim.lr": MIN_ZERO,
    "optim.lr_batch": MIN_ZERO,
    "optim.warmup_epochs": MIN_ZERO,
    "optim.ipe_scale": POSITIVE,
    "optim.clip": MIN_ZERO,
    "optim.clip_each": MIN_ZERO,
    "optim.layer_decay": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "data.size": (
        "'(height, width)' in pixels",
        lambda x: len(x) == 2 and min(x) >= 1,
    ),
    "data.train_size": (
        "'(height, width)' in pixels, or '()' for config.data.size",
        lambda x: len(x) == 0 or (len(x) == 2 and min(x) >= 1),
    ),
    "data.crop": (
        "'(smallest, largest)' share of the image, or '()' for none",
        lambda x: len(x) == 0 or (len(x) == 2 and 0 < x[0] <= x[1] <= 1),
    ),
    "data.ratio": span("width / height"),
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
    "data.workers": ("at least -1 (-1: by the number of cores)", lambda x: x >= -1),
    "data.stream": ("1 or 2", lambda x: x in (1, 2)),
    "data.pixels": (
        "'pillow', 'near' or 'fast'",
        lambda x: x in ("pillow", "near", "fast"),
    ),
    "data.max_broken": ("a part of all images, 0 to 1", lambda x: 0 <= x <= 1),
    "data.max_pixels": MIN_ONE,
    "data.retry_seconds": MIN_ZERO,
    "data.eval_batch_size": MIN_ONE,
    "online.share": ("from 0 to 1 (0: off)", lambda x: 0 <= x <= 1),
    "online.lr": MIN_ZERO,
    "online.queue": MIN_ONE,
    "online.k": MIN_ONE,
    "online.temperature": POSITIVE,
    "health.every": ("at least 0 (0: never)", lambda x: x >= 0),
    "health.images": ("at least 2", lambda x: x >= 2),
    "health.policy": ("'warn' or 'stop'", lambda x: x in ("warn", "stop")),
    "pictures.every_epochs": MIN_ZERO,
    "pictures.count": MIN_ONE,
    "nonfinite.policy": ("'stop' or 'skip'", lambda x: x in ("stop", "skip")),
    "nonfinite.most": MIN_ONE,
    "spike.policy": (
        "'off', 'stop' or 'skip'",
        lambda x: x in ("off", "stop", "skip"),
    ),
    "spike.deviations": POSITIVE,
    "spike.most": MIN_ONE,
}

LATER = {  # what recipes of before don't say
    "keep_best": "",
    "keep_every": 0,
    "track": "",
    "pictures.every_epochs": 0.0,
    "pictures.count": 8,
    "nonfinite.policy": "stop",
    "nonfinite.most": 10,
    "spike.policy": "off",
    "spike.deviations": 6.0,
    "spike.most": 3,
    "data.max_pixels": 178_956_970,
    "data.retry_seconds": 300,
}


def check_config(config):
    """Raises UserError for the first value of a ConfigDict that is out of its range."""
    check_values("config", LATER | flatten(config.to_dict()), RANGES)


def make_config(module, where, owner, values, cure=""):
    """The `Config` of a method's or an evaluator's module, its values in their ranges.

    Raises UserError for missing or unknown keys: `where` are the values, `owner` whose
    they are, `cure` what to do about it; and for a value out of `module.RANGES`.
    """
    fields = dataclasses.fields(module.Config)
    needed = {f.name for f in fields if f.default is dataclasses.MISSING}
    wrong = [f"- {k} (missing)" for k in sorted(needed - set(values))]
    known = {f.name for f in fields}
    wrong += [f"+ {k} (unknown)" for k in sorted(set(values) - known)]
    if wrong:
        lines = "\n  ".join(wrong)
        raise UserError(f"{where}: the keys don't fit {owner}:\n  {lines}{cure}")
    config = module.Config(**values)
    check_values(where, vars(config), module.RANGES)
    return config


def check_values(where, values, ranges):
    """Raises UserError for the first of `ranges` that `values` (by key) isn't in.

    `where` is put in front of the key.
    """
    for key, (wanted, fits) in ranges.items():
        if key not in values:
            raise UserError(f"{where}.{key} is missing; it is {wanted}")
        try:
            within = fits(values[key])
        except (TypeError, ValueError, OverflowError):  # no number, or no tuple
            within = False
        if not within:
            raise UserError(f"{where}.{key}: {values[key]!r} is not {wanted}")
