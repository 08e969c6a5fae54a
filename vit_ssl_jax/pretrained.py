"""Starting from the encoder of another run (`config.init_from`)."""

import json

import flax
import jax
import jax.numpy as jnp
from etils import epath

from vit_ssl_jax import checkpoint
from vit_ssl_jax.ops import posemb

# What changes the meaning of weights, though they fit.
TELLING = ("vit.gelu", "vit.norm_eps", "vit.posemb", "data.mean", "data.std")


def init_encoder(config, run, state):
    """The fresh state with the encoder of `config.init_from`; and what to say about it.

    A table that is learned from here on starts as the fixed one that the encoder was
    trained with, as in MAE's fine-tuning; without any, as a fresh one. Raises UserError
    where the encoder doesn't fit.
    """
    like = run.program.state.params["encoder"]
    encoder, folder = checkpoint.load_encoder(config.init_from, like)
    lines = [f"encoder: from {folder}"]
    written = (epath.Path(config.init_from) / "config.json").read_text()
    theirs, ours = (
        flax.traverse_util.flatten_dict(json.loads(text), sep=".")
        for text in (written, config.to_json_best_effort())
    )
    lines += [
        f"encoder: it was trained with {key}={theirs[key]!r}, here it is {ours[key]!r}"
        for key in TELLING
        if theirs[key] != ours[key]
    ]
    if "posemb" in like and "posemb" not in encoder:
        if theirs["vit.posemb"] == "none":
            lines.append("encoder: it has no position table, a fresh one is learned")
        else:
            lines.append("encoder: its fixed position table is learned from here on")
            table = fixed_table(run.encoder, theirs["vit.posemb"])
            encoder["posemb"] = jax.device_put(table, like["posemb"].sharding)
    params = {**state.params, "encoder": {**state.params["encoder"], **encoder}}
    ema = jax.tree.map(jnp.copy, run.method.init_ema(params))
    return state.replace(params=params, ema=ema), lines


def fixed_table(encoder, name):
    """The sine-cosine table of a ViT's grid, class token's row zero: `[1 N(+1) D]`."""
    table = posemb.sincos(encoder.grid, encoder.width, name == "sincos_big_vision")
    return posemb.with_cls(table, encoder.cls)
