"""RelViT's checkpoints: both directions, and what theirs holds in vain."""

import jax
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import relvit as names
from vit_ssl_jax.methods import relvit, supervised

TASKS = ("relations", "distances", "angles", "positions", "labels")
VIT = {"variant": "2x36x3/8", "cls": True}


def make_model(tiny, tasks=TASKS, posemb="none"):
    return relvit.RelViT(tiny.vit(**VIT, posemb=posemb), tasks, 16, 5, False)


def random_checkpoint(rows):
    """As Lightning stores it: values and positions are always there."""
    rng = np.random.default_rng(0)
    shapes = {name: r.shape for r in rows for name in r.names}
    heads = {name for name in shapes if ".q_lin" in name}
    shapes |= {name.replace("q_lin", "v_lin"): shapes[name] for name in heads}
    shapes.setdefault("backbone.pos_embed", (1, 17, 36))
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    return {"state_dict": arrays, "epoch": 99, "global_step": 19600}


@pytest.mark.parametrize("posemb", ["none", "learned"])
def test_round_trip_lacks_only_what_is_not_used(tiny, posemb):
    rows = names.relvit_rows(make_model(tiny, posemb=posemb))
    checkpoint = random_checkpoint(rows)
    params = names.import_relvit(rows, checkpoint)
    alone = names.import_relvit(rows, checkpoint["state_dict"])
    jax.tree.map(np.testing.assert_array_equal, params, alone)
    back = names.export_relvit(rows, params)["state_dict"]
    for name, x in back.items():
        np.testing.assert_array_equal(x, checkpoint["state_dict"][name])
    lost = checkpoint["state_dict"].keys() - back.keys()
    values = {f"rel_head.heads.{i}.v_lin.weight" for i in range(9)}
    values |= {f"{n}_head.heads.0.v_lin.weight" for n in ("dist", "angle")}
    unused = {"backbone.pos_embed"} if posemb == "none" else set()
    assert lost == values | unused


def test_imports_the_tree_of_the_model(tiny):
    model = make_model(tiny)
    views = {"image": np.zeros((1, 32, 32, 3), np.float32)}
    shapes = jax.eval_shape(
        lambda key: model.init(key, views, False)["params"], jax.random.key(0)
    )
    rows = names.relvit_rows(model)
    params = names.import_relvit(rows, random_checkpoint(rows))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


def test_published_names_and_where_they_go(tiny):
    rows = names.relvit_rows(make_model(tiny))
    theirs = random_checkpoint(rows)["state_dict"]
    expected = {
        "backbone.cls_token": (1, 1, 36),
        "backbone.pos_embed": (1, 17, 36),
        "backbone.patch_embed.proj.weight": (36, 3, 8, 8),
        "backbone.blocks.1.attn.qkv.weight": (108, 36),
        "backbone.norm.bias": (36,),
        "rel_head.heads.8.k_lin.weight": (4, 36),
        "dist_head.heads.0.q_lin.weight": (36, 36),
        "angle_head.heads.0.v_lin.weight": (36, 36),
        "abs_pos_head.weight": (16, 36),
        "abs_pos_head.bias": (16,),
        "clf_head.weight": (5, 36),
    }
    for name, shape in expected.items():
        assert theirs[name].shape == shape, name
    params = names.import_relvit(rows, theirs)
    weight = theirs["rel_head.heads.7.k_lin.weight"]
    np.testing.assert_array_equal(params["relations"]["key"][7], weight.T)


def test_a_fine_tuned_one_is_a_supervised_vit(tiny):
    encoder = tiny.vit(**VIT, posemb="learned")
    model = supervised.Supervised(encoder, "cls", 5)
    rows = names.classifier_rows(model)
    params = names.import_relvit(rows, random_checkpoint(rows))
    assert params["head"]["kernel"].shape == (36, 5)
    assert params["encoder"]["posemb"].shape == (1, 17, 36)


def test_heads_that_the_model_lacks_are_named(tiny):
    theirs = random_checkpoint(names.relvit_rows(make_model(tiny)))
    rows = names.relvit_rows(make_model(tiny, ("relations",)))
    with pytest.raises(UserError, match=r"\+ abs_pos_head.bias"):
        names.import_relvit(rows, theirs)
