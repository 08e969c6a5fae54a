"""The model of a config without its training: the shapes that finished runs load."""

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, partition

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
