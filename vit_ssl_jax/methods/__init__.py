"""The one protocol that all objectives follow, and their lookup by file name."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable

import flax.linen as nn

from vit_ssl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Method:
    """A model and the pure functions that train it.

    `make_views` sees the batch of a whole step, `{image float32 [B H W C] in [0, 1],
    label int32 [B], id int32 [B]}`, and returns arrays with B in front; gradient
    accumulation splits those, so what is drawn once a step is shared by its
    micro-batches. Targets, too, have B in front, and never carry a gradient: the step
    stops it.
    """

    model: nn.Module  # (views, train) -> outputs; its ViT is always called `encoder`
    make_views: Callable  # (key, batch) -> views; static shapes, on device
    make_targets: Callable  # (ema, views) -> targets
    loss_fn: Callable  # (outputs, targets) -> scalar, metrics
    init_ema: Callable = lambda params: {}
    update_ema: Callable = lambda ema, params, targets, step: ema
    encoder: Callable = lambda params, ema: params["encoder"]  # for downstream tasks
    draw: Callable = lambda outputs, targets, views: {}  # name -> images [B H W 3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may know of the run it serves."""

    vit: Callable  # (final_norm=True) -> models.vit.ViT of this run
    normalize: Callable  # image in [0, 1] -> standardised image
    mean_std: tuple  # of the channels
    steps: int  # optimiser steps of the whole run
    num_classes: int  # of the data, 0 without labels


def names():
    """Methods at hand: the files of this folder."""
    files = pathlib.Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if f.stem != "__init__")


def make(config, context):
    """Builds the `Method` that `config` (`config.method`: name and hyper-parameters) asks for.

    Raises UserError for a name without a file and for missing or unknown keys.
    """
    if config["name"] not in names():
        raise UserError(
            f"config.method.name: there is no method {config['name']!r}; "
            f"methods/ has {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{config['name']}")
    values = {k: v for k, v in config.items() if k != "name"}
    fields = set(module.Config.__dataclass_fields__)
    wrong = [f"- {k} (missing)" for k in sorted(fields - set(values))]
    wrong += [f"+ {k} (unknown)" for k in sorted(set(values) - fields)]
    if wrong:
        raise UserError(
            f"config.method: the keys don't fit methods/{config['name']}.py:\n  "
            + "\n  ".join(wrong)
            + "\nAnother method is another recipe in configs/; or give all of it: "
            "--config.method=\"{'name': ..., ...}\""
        )
    return module.make(module.Config(**values), context)
