"""Objectives of every kind of state go on from a checkpoint to the very same weights."""

import shutil

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import train

# A teacher, a running prior, orders drawn for every patch, averaged weights' kind of state.
METHODS = ("colorization", "ijepa", "supervised")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_with_the_same_weights(method, tmp_path):
    """Colorization's prior and I-JEPA's teacher are state, too."""
    config = runs.load("pretext_cpu.py", method)
    config.update_from_flattened_dict(
        {
            "data.name": "fake",
            "vit.variant": "2x32x2/4",
            "batch_size": 8,
            "steps": 4,
            "checkpoint_every": 2,
            "log_every": 1,
            "summary": False,
            "health.every": 0,
            "online.share": 0.1,
            "evals.knn.every_epochs": -1.0,
            "evals.pretext.every_epochs": -1.0,
        }
    )
    train.train(config, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "4")
    train.train(config, tmp_path / "stopped")
    ours, theirs = (runs.weights(tmp_path / n) for n in ("stopped", "straight"))
    assert ours.keys() == theirs.keys() and int(ours["step"]) == 4
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
