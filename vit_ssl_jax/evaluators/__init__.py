"""Evaluators, which say what an encoder is worth: a file each, found by its name.

An evaluator is a module (or a folder) here that has

    Config                    its settings: a frozen dataclass, kw_only
    RANGES                    of its settings, see `checks`
    wants(c) -> Wants         what it is given to judge by
    check(c, run, open_split) raises UserError, which opens with a key of `c`, for what
                              would go wrong later, and Unfit where the images are not
                              made for it; `open_split(key)` is a source
    make(c, run) -> evaluate  `evaluate(state, inputs) -> {metric: float}`

where `c` is a `Config`, `run` a `build.Run` and `inputs` an `Inputs`. Its name in
`config.evals` is that of its file, up to an underscore ("classify_v2"); there it also has
what the suite itself reads (`OF_SUITE`).
"""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from vit_ssl_jax.checks import make_config
from vit_ssl_jax.errors import UserError

# What the suite itself reads: when, and images of another set.
OF_SUITE = (
    "every_epochs",  # epochs between two evaluations; 0: one at the end; -1: never
    "set",  # a set other than the run's, named as config.data.name; "": the run's
    "dir",  # its folder, as config.data.dir
    "label",  # its label, as config.data.label
)


class Unfit(UserError):
    """The images lack what an evaluator needs: it is left out, and the run goes on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wants:
    """What an evaluator is given; splits go by the key of its settings that names them."""

    # Readouts `(layers, pool)` by split: features of plain images, which go through the
    # encoder once for all evaluators.
    features: Mapping = dataclasses.field(default_factory=dict)
    plain: tuple = ()  # splits whose plain images it takes through the model itself
    augmented: tuple = ()  # the same of augmented images
    labels: bool = True  # it can't do without
    model: bool = False  # the whole model, not the encoder alone
    pixels: bool = False  # raw pixels in the place of features will do
    maps: bool = False  # its splits are images with maps (`data.pairs`), no labels

    @property
    def splits(self):
        """Keys of all splits."""
        return tuple(dict.fromkeys((*self.features, *self.plain, *self.augmented)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the suite hands an evaluator; a split goes by its key in the settings."""

    features: Callable  # (key) -> ({readout: float32 [M F]}, labels [M] or [M C])
    # Of batches this process's rows: `sharing.place` makes them whole on the devices.
    plain: Callable  # (key) -> batches of `data.pipeline.eval_batches`, once
    augmented: Callable  # (key, first step, **cut) -> those of `train_batches`
    source: Callable  # (key) -> data.sources.Source
    record: Callable  # (key) -> dict: which images, and how they are resized
    folder: Any  # where it may save itself; None: nowhere
    stop_requested: Any  # true once it should stop, by `signals.Stopped`
    say: Callable  # (line)


def kind(name):
    """The evaluator that a name in `config.evals` stands for: up to an underscore."""
    return name.partition("_")[0]


@functools.cache
def names():
    """Evaluators at hand: the modules of this folder that make one."""
    stems = sorted({f.stem for f in pathlib.Path(__file__).parent.iterdir()})
    modules = [name for name in stems if name.isidentifier() and name[0] != "_"]
    return [name for name in modules if hasattr(_load(name), "make")]


def _load(name):
    return importlib.import_module(f"{__name__}.{name}")


def find(name):
    """The module of the evaluator `name` of `config.evals`; UserError without one."""
    known = names()
    if kind(name) not in known:
        raise UserError(
            f"config.evals: there is no evaluator {name!r}; known are "
            f"{', '.join(known)}"
        )
    return _load(kind(name))


def keys(name):
    """Keys of an evaluator's settings."""
    return set(find(name).Config.__dataclass_fields__)


def read_config(name, settings):
    """The `Config` of `config.evals.NAME`, all of it but what is the suite's.

    Raises UserError for a missing or unknown key and a value out of its range.
    """
    values = {k: v for k, v in settings.items() if k not in OF_SUITE}
    owner = f"the evaluator {kind(name)}"
    return make_config(find(name), f"config.evals.{name}", owner, values)
