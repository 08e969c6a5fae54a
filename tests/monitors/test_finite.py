"""What isn't finite is never saved; what the messages advise can be done."""

import json
import re
import shutil

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.monitors import finite

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast")
OVERFLOWS = dict(optim__lr=1e39, optim__warmup_epochs=0.0, checkpoint_every=1)
FLAG = re.compile(r"--config\.([\w.]+)=([\w.]+)")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two steps in bfloat16."""
    workdir = tmp_path_factory.mktemp("run")
    train.train(config_of(2), workdir)
    return workdir


def config_of(steps, **changes):
    """The config of the runs here."""
    numbers = dict(vit__dtype="bfloat16", vit__variant="1x16x2/16")
    return runs.small(**numbers | dict(steps=steps) | changes)


def fail(begun, folder, **changes):
    """The message of a run that goes on until it fails, in a copy of the folder."""
    shutil.copytree(begun, folder)
    with pytest.raises(UserError) as caught:
        train.train(config_of(6, **changes), folder)
    return str(caught.value)


def test_a_poisoned_state_is_never_saved(begun, tmp_path):
    """The step's own loss is finite; the parameters that it made are not."""
    said = fail(begun, tmp_path / "run", **OVERFLOWS)
    folder = tmp_path / "run" / "checkpoints" / "2"
    assert f"the last checkpoint, {folder}, is of step 2 and finite" in said
    assert "the same command goes on from there" in said
    kept = runs.weights(tmp_path / "run")
    assert int(kept["step"]) == 2
    assert all(np.isfinite(np.float64(x)).all() for x in kept.values())
    capsule = json.loads((tmp_path / "run/capsules/step-3.json").read_text())
    assert capsule["step"] == 3 and capsule["checkpoint"] == str(folder)
    assert np.isfinite(capsule["loss"]) and np.isfinite(capsule["grad_norm"])
    assert len(set(capsule["images"])) == 16 and capsule["config"]["seed"] == 0
    assert str(tmp_path / "run/capsules/step-3.json") in said


@pytest.mark.slow
def test_where_nothing_was_saved_it_says_so(tmp_path):
    with pytest.raises(UserError, match="at step 1; nothing was saved before it"):
        train.train(config_of(3, **OVERFLOWS), tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def with_flag(config, key, word):
    """The config with a value as the command reads it."""
    section, _, name = key.partition(".")
    config[section][name] = type(config[section][name])(word)
    return config


@pytest.mark.slow
def test_every_cure_that_is_told_of_a_step_that_is_not_finite_can_be_done(
    begun, tmp_path
):
    """Each alone, from the checkpoint that the message names."""
    said = fail(begun, tmp_path / "run", **OVERFLOWS)
    assert FLAG.findall(said) == [
        ("optim.clip", "1.0"),
        ("vit.dtype", "float32"),
        ("nonfinite.policy", "skip"),
    ]
    assert "a lower config.optim.lr (it is 1e+39)" in said
    for key, word in FLAG.findall(said)[:2]:
        folder = tmp_path / key
        shutil.copytree(tmp_path / "run", folder)
        train.train(with_flag(config_of(3), key, word), folder)
        assert int(runs.weights(folder)["step"]) == 3
    # With the rate that overflows every step is left out, and nothing moves.
    config = with_flag(config_of(9, **OVERFLOWS), "nonfinite.policy", "skip")
    config.nonfinite.most = 4
    with pytest.raises(UserError, match="4 steps in a row were left out, .* step 6;"):
        train.train(config, tmp_path / "run")
    before, after = runs.weights(begun), runs.weights(tmp_path / "run")
    for name in before.keys() - {"step"}:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert int(after["step"]) == 5 and int(after["skips/count"]) == 3
    rows = [row["train/skipped"] for row in runs.metrics(tmp_path / "run")[-3:]]
    assert rows == [1, 2, 3]
    names = {file.name for file in (tmp_path / "run/capsules").iterdir()}
    assert names == {f"step-{n}.json" for n in range(3, 7)}


@pytest.mark.slow
def test_spikes_are_left_out_alike_by_a_run_that_goes_on(tmp_path):
    """Norms, counts and what isn't learned are state. Half of all steps are a spike."""
    numbers = dict(spike__policy="skip", spike__deviations=1e-6, spike__most=1000)
    numbers |= dict(checkpoint_every=40, log_every=20, online__share=0.1)
    config = config_of(46, **numbers)
    train.train(config, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped/checkpoints/46")
    train.train(config, tmp_path / "stopped")
    ours, theirs = (runs.weights(tmp_path / n) for n in ("stopped", "straight"))
    assert ours.keys() == theirs.keys() and int(ours["skips/count"]) > 0
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    config.spike.policy, config.steps = "stop", 90
    with pytest.raises(UserError, match="is a spike, above") as caught:
        train.train(config, tmp_path / "straight")
    assert FLAG.findall(str(caught.value)) == [
        ("optim.clip", "1.0"),
        ("spike.policy", "skip"),
        ("spike.policy", "off"),
    ]
    config = with_flag(config, "spike.policy", "off")
    config.steps = 47
    train.train(config, tmp_path / "straight")
    after = runs.weights(tmp_path / "straight")
    assert int(after["step"]) == 47 and "skips/count" not in after


def test_cures_are_those_that_change_something():
    config = runs.small(optim__clip=0.5, nonfinite__policy="skip")
    assert finite.cures(config, False) == ["a lower config.optim.lr (it is 0.001)"]
    config = runs.small(spike__policy="skip", optim__clip=0.5)
    assert finite.cures(config, True) == [
        "--config.spike.most=30",
        "--config.spike.policy=off (they are taken)",
    ]
