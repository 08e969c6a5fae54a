"""The one protocol that all objectives follow, and their lookup by file name."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable

import flax.linen as nn

from vit_ssl_jax.checks import make_config
from vit_ssl_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A model and the pure functions that train it.

    Views: `make_views` sees the batch of a whole step, `{image float32 [B H W C] in
    [0, 1], label int32 [B], id int32 [B]}`, and returns arrays with B in front.
    Accumulation splits those, so what is drawn once a step is shared by its
    micro-batches, each of which has targets and a loss of its own.

    Targets: arrays with B in front, too, which never carry a gradient: the step stops
    it. `step`, for what has a schedule, is an int32 scalar: optimiser steps done before.

    Metrics: scalars by name, means over the examples as the loss is. They are logged as
    `train/NAME`, one with a slash in its name as it is; of held-out images as
    `eval/pretext/NAME`.

    Averages: `ema` is a dict that checkpoints hold beside the parameters, `{}` without.
    Under `encoder` there are the parameters of a ViT (a teacher's, averaged ones), and
    whoever starts from this run takes those. Else it may hold any arrays, each whole on
    every device: a centre, a queue, a histogram. `update_ema` runs after the optimiser,
    once a step, with the new parameters and the targets of all examples in their order,
    accumulation or not.

    Pictures: rows by what to call them, in the order in which they are shown, below the
    images themselves: images float32 `[B h w 3]` in [0, 1]; classes int32 `[B]`, which
    become names (-1: none); or shares float32 `[B]`, in per cent.
    """

    model: nn.Module  # (views, train) -> outputs; its ViT is always called `encoder`
    make_views: Callable  # (key, batch) -> views; static shapes, on device
    make_targets: Callable  # (ema, views, step) -> targets
    loss_fn: Callable  # (outputs, targets) -> scalar, metrics
    init_ema: Callable = lambda params: {}
    update_ema: Callable = lambda ema, params, targets, step: ema
    encoder: Callable = lambda params, ema: params["encoder"]  # for downstream tasks
    draw: Callable = lambda outputs, targets, views: {}  # -> pictures
    draw_more: Callable = lambda params, ema, views: {}  # -> those that a network makes
    # Of a classifier: (params, standardised image [B H W C]) -> logits [B classes].
    logits: Callable | None = None
    # Where a network makes the targets: targets -> its features [... D], whose collapse
    # `monitors.health` watches.
    features: Callable | None = None
    needs_labels: bool = False  # an image without one ends the run
    averages: bool = False  # `ema` is all parameters under their names, averaged
    # The loss is one of the whole batch (decorrelation, uniformity), no mean over
    # examples: of each micro-batch by itself, and of held-out images in full batches.
    batch_loss: bool = False
    # It cuts its views out of images of any size (`config.data.train_size`).
    crops: bool = False
    # Parameters that stay as they are in the first steps: (path of names, steps).
    frozen: tuple = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may know of the run it serves."""

    vit: Callable  # (final_norm=True) -> models.vit.ViT of this run
    normalize: Callable  # image in [0, 1] -> standardised image
    mean_std: tuple  # of the channels
    steps: int  # optimiser steps of the whole run
    epochs: float  # those that the steps make up in the recipe, for what goes by them
    num_classes: int  # of the data, 0 without labels


def names():
    """Methods at hand: the files of this folder."""
    files = pathlib.Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if f.stem != "__init__")


def make(config, context):
    """Builds the `Method` that `config` (`config.method`: name and hyper-parameters) asks for.

    Raises UserError for a name without a file, for missing or unknown keys and for a
    value out of its range (`RANGES` beside the method's `Config`, see `checks`).
    """
    if config["name"] not in names():
        raise UserError(
            f"config.method.name: there is no method {config['name']!r}; "
            f"methods/ has {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{config['name']}")
    values = {k: v for k, v in config.items() if k != "name"}
    cure = (
        "\nAnother method is another recipe in configs/; or give all of it: "
        "--config.method=\"{'name': ..., ...}\""
    )
    owner = f"methods/{config['name']}.py"
    c = make_config(module, "config.method", owner, values, cure)
    return module.make(c, context)
