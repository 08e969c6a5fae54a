"""Whether an evaluator's settings fit the model and the data, before any long work."""

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import classify, heads, probe
from vit_ssl_jax.models import readouts


def check(kind, where, settings, run, open_split):
    """Raises UserError for what would go wrong later; `where` names the evaluator.

    `settings` are its own, `open_split(key)` the source of one of its splits.
    """
    if kind == "pretext":
        return
    if kind == "classify":
        check_classifier(where, settings, run.method.model, open_split("split"))
        return
    for key in ("bank", "queries"):
        if not settings.get(key):
            raise UserError(f"{where}.{key}: name a split")
        if not open_split(key).num_classes:
            raise UserError(f"{where}.{key}: {settings[key]} has no labels")
    bank = open_split("bank")
    if np.ndim(bank.no_label):
        raise UserError(
            f"{where}.bank: its images have sets of classes, and one class is needed"
        )
    if kind == "knn" and max(settings.k) > len(bank):
        raise UserError(
            f"{where}.k: {max(settings.k)} neighbours of {len(bank)} bank images "
            f"({settings.bank})"
        )
    if kind == "probe":
        grid = heads.read_config(settings)
        probe.check_batch(grid, run.mesh)
        for readout in grid.readouts:
            readouts.check_readout(readout, run.encoder.depth, run.encoder.cls)


def check_classifier(where, settings, model, source):
    """Raises UserError unless a model has a head for the classes of a source."""
    if not hasattr(model, "logits"):
        raise UserError(
            f"{where}: only config.method.name='supervised' makes a classifier; leave "
            "it out"
        )
    if np.ndim(source.no_label) and settings.label_map:
        raise UserError(f"{where}.label_map: the images here have sets of classes")
    classes = source.num_classes
    classify.check_head(where, classes, model.num_classes, settings.label_map)
