"""Names of MaskFeat's two checkpoints."""

import json
import pathlib

import jax
import numpy as np
import pytest

from vit_ssl_jax.interop import maskfeat, table

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
ROWS = {"slowfast": maskfeat.slowfast_rows, "mmpretrain": maskfeat.mmpretrain_rows}
# One of each kind, by hand (methods' chapters on the two repositories).
NAMES = {
    "cls_token": "backbone.cls_token",
    "pos_embed": "backbone.pos_embed",
    "mask_token": "backbone.mask_token",
    "patch_embed.proj.weight": "backbone.patch_embed.projection.weight",
    "blocks.0.norm1.weight": "backbone.layers.0.ln1.weight",
    "blocks.1.norm2.bias": "backbone.layers.1.ln2.bias",
    "blocks.0.attn.qkv.bias": "backbone.layers.0.attn.qkv.bias",
    "blocks.1.attn.proj.weight": "backbone.layers.1.attn.proj.weight",
    "blocks.1.mlp.fc1.weight": "backbone.layers.1.ffn.layers.0.0.weight",
    "blocks.0.mlp.fc2.bias": "backbone.layers.0.ffn.layers.1.bias",
    "pred_head.transforms.0.0.weight": "backbone.ln1.weight",
    "pred_head.projections.0.bias": "neck.fc.bias",
}


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.method("maskfeat", (16, 24), {"cls": True, "posemb": "learned"}).model


@pytest.mark.parametrize("name", ROWS)
def test_round_trip_is_the_identity(model, name):
    rows, rng = ROWS[name](model), np.random.default_rng(0)
    theirs = {
        n: rng.normal(size=r.shape).astype(np.float32) for r in rows for n in r.names
    }
    params = table.import_params(rows, theirs)
    back = table.export_params(rows, params)
    assert back.keys() == theirs.keys()
    for n, x in theirs.items():
        np.testing.assert_array_equal(back[n], x, err_msg=n)


def test_imports_the_tree_of_the_model(model):
    views = {"image": np.zeros((1, 16, 24, 3), np.float32)}
    views["hide"] = np.zeros((1, 24), bool)
    expected = jax.eval_shape(
        lambda key: model.init(key, views, False)["params"], jax.random.key(0)
    )
    rows = maskfeat.slowfast_rows(model)
    theirs = {n: np.zeros(r.shape) for r in rows for n in r.names}
    params = table.import_params(rows, theirs)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)


def test_the_two_name_the_same_parameters(model):
    one, other = (
        sorted((r.ours, n) for r in rows(model) for n in r.names)
        for rows in ROWS.values()
    )
    assert [name for name, _ in one] == [name for name, _ in other]
    both = {a: b for (_, a), (_, b) in zip(one, other)}
    assert both.items() >= NAMES.items()


def test_names_are_slowfasts(model):
    """Every parameter of the real model, of which only the depth differs."""
    theirs = json.loads((GOLDEN / "init_stats_maskfeat.json").read_text())
    (stats,) = theirs.values()
    ours = {n for r in maskfeat.slowfast_rows(model) for n in r.names}
    deep = {n for n in stats if n.startswith("blocks.") and int(n.split(".")[1]) > 1}
    assert ours == set(stats) - deep


def test_constants_are_dropped():
    names = ["hogs.0.weight_x", "target_generator.gaussian_kernel", "cls_token"]
    assert list(maskfeat.drop_constants(dict.fromkeys(names))) == ["cls_token"]
