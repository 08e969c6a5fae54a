"""Encoders of other runs: what is read, what is refused, where the patches are put."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from vit_ssl_jax import partition, pretrained
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.step import TrainState
from vit_ssl_jax.workdir import checkpoint, restore


def make_params(value, rows=17, width=8, classes=0):
    """A tree of a method whose encoder has a class token and a learned table."""
    table = value + jnp.arange(rows, dtype=jnp.float32).reshape(1, rows, 1)
    encoder = {
        "cls": jnp.full((1, 1, width), value),
        "posemb": jnp.broadcast_to(table, (1, rows, width)),
        "norm": {"scale": jnp.full(width, value)},
    }
    head = {"kernel": jnp.full((width, classes), value)}
    return {"encoder": encoder} | ({"head": head} if classes else {})


def shapes(tree):
    """What a run gives to restore onto."""
    mesh = partition.make_mesh(dict(data=4, fsdp=2, tensor=1))
    layout = partition.shardings(tree, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout
    )


def save(workdir, params, ema, steps=(1,)):
    """A run's workdir whose checkpoints hold these, the last one as they are."""
    checkpoints = checkpoint.Checkpoints(workdir, keep=3)
    for step in steps:
        older = float(steps[-1] - step)
        state = jax.tree.map(lambda x, older=older: x - older, (params, ema))
        checkpoints.save(TrainState(jnp.int32(step), state[0], {}, state[1]), 0.0)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A classifier with averaged weights: parameters of 2, averages of 1; two steps."""
    params, ema = (make_params(x, classes=3) for x in (2.0, 1.0))
    return save(tmp_path_factory.mktemp("run"), params, ema, steps=(1, 2))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A student of 2 and its teacher of 1, which is the encoder alone."""
    params, ema = make_params(2.0, classes=3), make_params(1.0)
    return save(tmp_path_factory.mktemp("run"), params, ema)


def test_parameters_and_their_averages_are_read(averaged, caplog):
    like = shapes(make_params(0.0, classes=3))
    params, ema, folder = restore.load_params(averaged, like, like)
    assert folder.name == "2"
    for tree, value in ((params, 2.0), (ema, 1.0)):
        jax.tree.map(np.testing.assert_array_equal, tree, make_params(value, classes=3))
    kernel = params["head"]["kernel"]
    assert kernel.sharding == like["head"]["kernel"].sharding
    assert not caplog.records


def test_one_checkpoint_of_a_run_can_be_named(averaged):
    like = shapes(make_params(0.0, classes=3))
    path = averaged / "checkpoints" / "1"
    params, ema, folder = restore.load_params(path, like, like)
    assert folder == epath.Path(path)
    assert params["head"]["kernel"][0, 0] == 1.0 and ema["head"]["kernel"][0, 0] == 0.0


def test_a_teacher_is_no_average_of_all_parameters(taught):
    student, teacher = make_params(0.0, classes=3), make_params(0.0)
    params, ema, _ = restore.load_params(taught, shapes(student), shapes(teacher))
    assert set(ema) == {"encoder"} and ema["encoder"]["cls"][0, 0, 0] == 1.0
    assert params["encoder"]["cls"][0, 0, 0] == 2.0
    with pytest.raises(UserError, match=r"- head/kernel \(8, 3\)"):
        restore.load_params(taught, shapes(student), shapes(student))


def test_averages_that_nobody_asks_for_stay_where_they_are(averaged):
    _, ema, _ = restore.load_params(averaged, shapes(make_params(0.0, classes=3)))
    assert ema == {}


@pytest.mark.parametrize("run", ["averaged", "taught"])
def test_the_teachers_or_averaged_encoder_is_taken(run, request):
    encoder, _ = restore.load_encoder(
        request.getfixturevalue(run), shapes(make_params(0.0)["encoder"])
    )
    jax.tree.map(np.testing.assert_array_equal, encoder, make_params(1.0)["encoder"])


def test_another_model_is_listed(averaged, tmp_path):
    like = shapes(make_params(0.0, classes=5))
    with pytest.raises(UserError, match=r"~ head/kernel \(8, 3\), the config makes"):
        restore.load_params(averaged, like)
    like = shapes({"cls": jnp.zeros((1, 1, 4)), "more": jnp.zeros(3)})
    theirs = {"encoder": {"cls": jnp.zeros((1, 1, 8)), "other": jnp.zeros(5)}}
    with pytest.raises(UserError, match="holds another model") as error:
        restore.load_encoder(save(tmp_path, theirs, {}), like)
    assert "  - more (3,)" in str(error.value)
    assert "  + other (5,)" in str(error.value)
    assert "  ~ cls (1, 1, 8)" in str(error.value)


def test_a_table_of_another_grid_comes_as_it_is_and_an_unused_norm_stays(averaged):
    like = make_params(0.0, rows=37)["encoder"]
    del like["norm"]
    encoder, _ = restore.load_encoder(averaged, shapes(like))
    assert set(encoder) == {"cls", "posemb"}
    assert encoder["posemb"].shape == (1, 17, 8)
    assert encoder["posemb"].is_fully_replicated


def test_an_empty_folder_is_explained(tmp_path):
    for load in (restore.load_params, restore.load_encoder):
        with pytest.raises(UserError, match="there is no checkpoint under"):
            load(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "config.json can't be read .* copy it there from the run"),
        ("{garbage", "config.json can't be read"),
        ("[1, 2]", "config.json can't be read"),
        ('{"vit": {"gelu": "tanh"}}', "the config.json of .* has no vit.norm_eps, "),
    ],
)
def test_a_missing_or_strange_config_is_explained(tmp_path, text, said):
    folder = epath.Path(tmp_path) / "checkpoints" / "8"
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        pretrained.read_config(restore.Saved(folder))


def test_a_config_is_read_flat(tmp_path):
    flat = dict.fromkeys(pretrained.NAMES, "tanh") | {"vit.norm_eps": 1e-6}
    flat |= {"data.size": [32, 32], "data.mean": [0, 0, 0], "data.std": [1, 1, 1]}
    assert set(flat) == set(pretrained.TELLING + pretrained.SHAPE)
    tree = {"vit": {}, "data": {}}
    for key, value in flat.items():
        first, second = key.split(".")
        tree[first][second] = value
    (tmp_path / "config.json").write_text(json.dumps(tree))
    folder = epath.Path(tmp_path) / "checkpoints" / "8"
    out = pretrained.read_config(restore.Saved(folder))
    assert out == flat
