"""The model of a config without its training: the shapes that finished runs load."""

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, partition
from vit_ssl_jax.errors import UserError

METHODS = [name for (name,) in runs.arguments("pretext_cpu.py")]
MESH = dict(data=2, fsdp=2, tensor=1)


def flat(tree):
    """`{path: (shape, dtype, sharding)}` of shapes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): (x.shape, x.dtype, x.sharding) for p, x in leaves}


@pytest.mark.parametrize("method", METHODS)
def test_a_model_has_the_shapes_of_its_run_and_the_encoders_are_among_them(method):
    config = runs.load("pretext_cpu.py", method)
    config.mesh.update(MESH)
    devices = jax.devices()[:4]
    state = build.make_run(config, devices).program.state
    model = build.make_model(config, partition.make_mesh(config.mesh, devices))
    params, ema = model.shapes
    assert flat(params) == flat(state.params) and flat(ema) == flat(state.ema)
    assert flat(model.encoder_shapes) == flat(params["encoder"])


@pytest.mark.parametrize(("method", "refused"), [("mae", True), ("dino", False)])
def test_larger_training_images_are_for_methods_that_cut_crops(method, refused):
    config = runs.load("pretext_cpu.py", method)
    config.data.train_size = (40, 48)
    if refused:
        with pytest.raises(
            UserError, match="config.data.train_size: mae cuts no crops"
        ):
            build.make_run(config, jax.devices()[:1])
        return
    run = build.make_run(config, jax.devices()[:1])
    assert run.size == (40, 48) and run.encoder.size == (32, 32)
    assert run.program.batch["image"].shape == (config.batch_size, 40, 48, 3)


def test_what_goes_by_epochs_knows_them():
    config = runs.load("pretext_cpu.py", "dino")
    config.method.freeze_epochs = 0.25
    run = build.make_run(config, jax.devices()[:1])
    assert run.method.frozen[0] == (("head", "prototypes"), 0.25 * config.steps)
