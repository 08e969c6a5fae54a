"""Training data from a config: what is refused before any work."""

import dataclasses

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import inputs
from vit_ssl_jax.data import sources
from vit_ssl_jax.errors import UserError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(data__randaugment="rand-m9-mstd0.5-x"), "config.data.randaugment"),
        (dict(data__pad=4), "config.data.pad"),
        (dict(data__crop=(), data__train_resize=16), "config.data.train_resize"),
        (dict(data__label="breed"), "config.data.label"),
    ],
)
def test_an_augmentation_or_a_label_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        inputs.open_data(runs.small("mae", **changes))


def test_sets_of_classes_are_not_for_training(monkeypatch):
    source = sources.open_source("fake", "", "train")
    sets = dataclasses.replace(source, no_label=np.zeros(10, np.uint8))
    monkeypatch.setattr(sources, "open_source", lambda *a, **k: sets)
    with pytest.raises(UserError, match="training needs one class"):
        inputs.open_data(runs.small("mae"))


def test_an_image_without_a_label_stops_a_method_that_learns_from_labels():
    config = runs.small("mae").copy_and_resolve_references().unlock()
    source = sources.open_source("fake", "", "train")
    part = dataclasses.replace(source, read=lambda i: (source.read(i)[0], i % 2 - 1))
    assert (next(inputs.open_batches(config, part, 0))["label"] == -1).any()  # MAE
    config.method.name = "supervised"
    with pytest.raises(UserError, match=r"has no label \(-1\)"):
        next(inputs.open_batches(config, part, 0))
