"""A step made again from its capsule: overflows planted by the config and in a checkpoint."""

import json
import shutil

import jax.numpy as jnp
import pytest

from tests import runs
from vit_ssl_jax import build, replay, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import capsule, checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:overflow encountered in cast"),
]
LARGE = -3.4e38  # finite in float32, infinite in bfloat16


def config_of(steps, **changes):
    """The config of the runs here."""
    numbers = dict(vit__dtype="bfloat16", vit__variant="2x16x2/16")
    return runs.small(steps=steps, **numbers, **changes)


def damage(workdir, config):
    """Writes a checkpoint of step 3: that of 2 with one bias of layer 2 so large."""
    checkpoints = checkpoint.Checkpoints(workdir, keep=2)
    state, seconds = checkpoints.restore(build.make_run(config).program.state)
    state.params["encoder"]["blocks"]["block"]["mlp"]["up"]["bias"] = (
        state.params["encoder"]["blocks"]["block"]["mlp"]["up"]["bias"]
        .at[1, 5]
        .set(LARGE)
    )
    checkpoints.save(state.replace(step=jnp.int32(3)), seconds)
    checkpoints.close()


def end(config, workdir):
    """The capsule of a run that ends with a step that isn't finite."""
    with pytest.raises(UserError):
        train.train(config, workdir)
    (file,) = (workdir / "capsules").iterdir()
    return file


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two steps in bfloat16, saved."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of(2)
    train.train(config, workdir)
    return config, workdir


def test_the_operation_that_bfloat16_overflows_in_is_named(begun, tmp_path, capsys):
    """A cast of a bias, in the second of two layers; float32 would have been finite."""
    config, workdir = begun
    shutil.copytree(workdir, tmp_path / "run")
    damage(tmp_path / "run", config)
    file = end(config_of(9, log_every=3), tmp_path / "run")
    assert file.name == "step-4.json"
    found = replay.replay(file)
    op = found["operation"]
    assert (found["step"], found["float32"]) == (4, True)
    assert (op.name, op.result) == ("convert_element_type", "inf")
    assert op.outputs[0].startswith("bfloat16[") and "float32[" in op.inputs[0]
    assert op.place.startswith("vit_ssl_jax/models/dense.py:")
    assert op.scope.endswith("mlp/up") and op.iterations == ("2 of 2",)
    said = capsys.readouterr().out
    assert "checkpoints/3 (step 3), on one CPU device, bfloat16" in said
    assert "in float32 (--config.vit.dtype=float32) the step is finite" in said


def test_a_rate_that_overflows_is_named_where_it_is_made(begun, tmp_path):
    """In the step before the one whose loss told of it."""
    _, workdir = begun
    shutil.copytree(workdir, tmp_path / "run")
    numbers = dict(optim__lr=1e39, optim__warmup_epochs=0.0, log_every=3)
    file = end(config_of(9, **numbers), tmp_path / "run")
    found = replay.replay(file)
    assert found["step"] == 3
    assert found["operation"].given
    assert found["operation"].place.startswith("vit_ssl_jax/optim.py:")
    content = json.loads(file.read_text())
    assert content["step"] == 4 and content["checkpoint_step"] == 2


def test_a_file_that_is_no_capsule_is_one_message(tmp_path):
    for text in ("{", "[]", '{"step": 1}', "{}"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="x.json (can't be read|is no capsule)"):
            capsule.read(tmp_path / "x.json")
