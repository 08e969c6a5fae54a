"""Checkpoint tables: both directions, and what they refuse."""

import jax
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import fair, table, timm
from vit_ssl_jax.methods import ijepa, mae, supervised
from vit_ssl_jax.models import decoder, layers, vit

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="exact", init="mae", remat="none", unroll=1
)


def make_encoder(**changes):
    values = {
        "grid": (2, 3),
        "patch": 4,
        "depth": 2,
        "width": 12,
        "hidden": 20,
        "heads": 3,
        "posemb": "sincos",
        "cls": True,
        "final_norm": True,
        "droppath": 0.0,
        "dropout": 0.0,
        "style": STYLE,
    }
    return vit.ViT(**{**values, **changes})


def make_decoder(**changes):
    return decoder.Decoder(
        grid=(2, 3), width=8, hidden=32, depth=1, heads=2, style=STYLE, **changes
    )


MAE = mae.MAE(make_encoder(), make_decoder(features=48, cls=True))
IJEPA = ijepa.IJEPA(make_encoder(cls=False), make_decoder(features=12, cls=False))
TOKEN = supervised.Supervised(make_encoder(posemb="learned"), "cls", 5)
AVG = supervised.Supervised(make_encoder(posemb="learned", final_norm=False), "mean", 5)
FLAT = {
    "mae": fair.mae_rows(MAE),
    "token": timm.classifier_rows(TOKEN),
    "avg": timm.classifier_rows(AVG),
}


def random_checkpoint(rows):
    rng = np.random.default_rng(0)
    out = {}
    for r in rows:
        for name in r.names:
            if isinstance(r, table.Fixed):
                out[name] = r.value
            else:
                out[name] = rng.normal(size=r.shape).astype(np.float32)
    return out


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", FLAT)
def test_round_trip_is_the_identity(name):
    theirs = random_checkpoint(FLAT[name])
    params = table.import_params(FLAT[name], theirs)
    assert_same(table.export_params(FLAT[name], params), theirs)
    again = table.import_params(FLAT[name], table.export_params(FLAT[name], params))
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_round_trip_of_ijepa():
    rows = fair.ijepa_rows(IJEPA)
    theirs = {part: random_checkpoint(rows[part]) for part in rows}
    theirs["target_encoder"]["norm.bias"] = np.full(12, 7.0, np.float32)
    prefixed = {
        part: {f"module.{name}": x for name, x in tree.items()}
        for part, tree in theirs.items()
    }
    params, ema = fair.import_ijepa(IJEPA, {**prefixed, "epoch": 3})
    np.testing.assert_array_equal(ema["encoder"]["norm"]["bias"], 7.0)
    back = fair.export_ijepa(IJEPA, params, ema)
    assert back.keys() == theirs.keys()
    for part, tree in theirs.items():
        assert_same(back[part], tree)
    with pytest.raises(UserError, match="no predictor"):
        fair.import_ijepa(IJEPA, {"encoder": {}, "target_encoder": {}})


@pytest.mark.parametrize("name, model", [("mae", MAE), ("token", TOKEN), ("avg", AVG)])
def test_imports_the_tree_of_the_model(name, model):
    ids = np.arange(6)[None]
    views = {
        "image": np.zeros((1, 8, 12, 3), np.float32),
        "keep": ids[:, :2],
        "hide": ids[:, 2:],
    }
    expected = jax.eval_shape(
        lambda key: model.init(key, views, False)["params"], jax.random.key(0)
    )
    params = table.import_params(FLAT[name], random_checkpoint(FLAT[name]))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected)


def test_kernel_order():
    """Weight (d, channel, row, column) lands at patch feature (row, column, channel)."""
    theirs = random_checkpoint(FLAT["mae"])
    params = table.import_params(FLAT["mae"], theirs)["encoder"]
    kernel = theirs["patch_embed.proj.weight"]
    assert params["patch"]["kernel"][(3 * 4 + 1) * 3 + 2, 5] == kernel[5, 2, 3, 1]
    qkv = params["blocks"]["block"]["attn"]["qkv"]["kernel"]  # [L D 3 A E]
    weight = theirs["blocks.1.attn.qkv.weight"]
    assert qkv[1, 7, 1, 2, 3] == weight[1 * 12 + 2 * 4 + 3, 7]


def test_names_that_dont_fit_are_listed():
    theirs = random_checkpoint(FLAT["mae"])
    theirs["head.weight"] = theirs.pop("blocks.1.mlp.fc2.bias")
    with pytest.raises(UserError) as error:
        table.import_params(FLAT["mae"], theirs)
    assert "\n - blocks.1.mlp.fc2.bias\n + head.weight" in str(error.value)
    params = table.import_params(FLAT["token"], random_checkpoint(FLAT["token"]))
    params["extra"] = params.pop("head")
    with pytest.raises(UserError, match=r"\n - head/bias\n(.*\n)* \+ extra/bias"):
        table.export_params(FLAT["token"], params)


def test_other_shape_is_refused():
    theirs = random_checkpoint(FLAT["token"])
    theirs["head.bias"] = np.zeros(6, np.float32)
    with pytest.raises(UserError, match=r"head.bias has shape \(6,\).*\(5,\)"):
        table.import_params(FLAT["token"], theirs)


@pytest.mark.parametrize("name", ["pos_embed", "decoder_pos_embed"])
def test_transposed_table_is_refused(name):
    theirs = random_checkpoint(FLAT["mae"])
    width = theirs[name].shape[-1]
    grid = theirs[name][0, 1:].reshape(2, 3, width)
    halves = np.split(grid, 2, axis=-1)
    swapped = np.concatenate(halves[::-1], axis=-1).reshape(6, width)
    theirs[name] = np.concatenate([theirs[name][0, :1], swapped])[None]
    with pytest.raises(UserError, match=f"{name} is not this model's sine-cosine"):
        table.import_params(FLAT["mae"], theirs)
    theirs[name] = np.full_like(theirs[name], np.nan)
    with pytest.raises(UserError, match=name):
        table.import_params(FLAT["mae"], theirs)
