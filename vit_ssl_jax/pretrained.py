"""Starting from the encoder of another run (`config.init_from`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition, recipes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import posemb
from vit_ssl_jax.workdir import restore

# What changes the meaning of weights, though they fit.
TELLING = ("vit.gelu", "vit.norm_eps", "vit.posemb", "data.mean", "data.std")
SHAPE = ("vit.variant", "data.size")  # give the grid of patches


def init_encoder(config, run, state):
    """Puts the encoder of `config.init_from` into a state: `(state, lines to say)`.

    Raises UserError where that encoder doesn't fit.
    """
    try:
        like = run.program.state.params["encoder"]
        encoder, theirs, lines = load(config.init_from, run.encoder, like)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    ours = recipes.flatten(json.loads(config.to_json_best_effort()))
    lines += [
        f"encoder: it was trained with {key}={theirs[key]!r}, here it is {ours[key]!r}"
        for key in TELLING
        if theirs[key] != ours[key]
    ]
    params = {**state.params, "encoder": {**state.params["encoder"], **encoder}}
    ema = jax.tree.map(jnp.copy, run.method.init_ema(params))
    return state.replace(params=params, ema=ema), lines


def load(path, encoder, like):
    """The parameters of another run's encoder, fitted to a ViT of this one.

    Returns `(params, its config as of read_config, lines to say)`. `path` is that run's
    workdir or a `checkpoints/STEP` in it, `encoder` the ViT, `like` its parameters as
    ShapeDtypeStructs with shardings. A position table that is learned from here on
    starts as the one that the encoder was trained with, learned or fixed, resampled
    where the grid of patches is another, as in MAE's fine-tuning. It is missing in
    `params` where there was none. Raises UserError where the encoder doesn't fit.
    """
    theirs = check_class_token(path, encoder)
    params, folder = restore.load_encoder(path, like)
    learned = params.pop("posemb", None)
    table, lines = place_encoder(learned, encoder, theirs)
    if table is not None:
        params["posemb"] = partition.put(table, like["posemb"].sharding)
    return params, theirs, [f"encoder: from {folder}", *lines]


def check_class_token(path, encoder):
    """The other run's config; raises UserError where only one ViT has a class token."""
    theirs = read_config(restore.find_folder(path))
    if theirs.get("vit.cls", encoder.cls) != encoder.cls:
        has, lacks = ("it", "this one") if theirs["vit.cls"] else ("this one", "it")
        raise UserError(
            f"{path}: {has} has a class token, {lacks} has none; set "
            f"--config.vit.cls={theirs['vit.cls']}"
        )
    return theirs


def read_config(folder):
    """Reads the config of a checkpoint's encoder: `{dotted key: value}`."""
    config = recipes.flatten(read_whole_config(folder))
    missing = [key for key in TELLING + SHAPE if key not in config]
    if missing:
        raise UserError(
            f"the config.json of {folder} has no {', '.join(missing)}; is it a run's?"
        )
    return config


def read_whole_config(folder):
    """The config of the run that a checkpoint's folder belongs to: nested dicts."""
    file = folder.parent.parent / "config.json"
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict):
            raise TypeError("it is no dict")
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} can't be read ({error}), and only it says how the encoder was "
            "trained; copy it there from the run that wrote the checkpoint"
        ) from error
    return config


def place_encoder(table, encoder, theirs):
    """Positions of patches from here on: `(table [1 N(+1) D] or None, lines to say)`.

    `table` is the learned one that came with the encoder, None where it has none;
    `encoder` is the ViT of this run, `theirs` the other run's config.
    """
    patch = vit.decode_variant(theirs["vit.variant"])["patch"]
    old, new = tuple(side // patch for side in theirs["data.size"]), encoder.grid
    change = f"grid of {new[0]}x{new[1]} patches, not {old[0]}x{old[1]}"
    kind, lines = theirs["vit.posemb"], []
    if kind == "none" or encoder.posemb == "none":
        if encoder.posemb == "learned":
            lines.append("encoder: it has no position table, a fresh one is learned")
        return None, lines
    if encoder.posemb != "learned":
        if old != new:
            lines.append(
                f"encoder: its fixed position table is made anew for a {change}"
            )
        return None, lines
    if table is None:
        lines.append("encoder: its fixed position table is learned from here on")
        table = fixed_table(old, encoder, kind)
    table = np.asarray(table)
    if table.shape[1] != old[0] * old[1] + encoder.cls:
        raise UserError(
            f"its position table has {table.shape[1]} rows, but its config.json says "
            f"vit.variant={theirs['vit.variant']!r}, data.size={theirs['data.size']}"
        )
    if old != new:
        lines.append(f"encoder: its position table is resampled for a {change}")
        table = posemb.resample(table[0], old, new)[None]
    return table, lines


def fixed_table(grid, encoder, kind):
    """The sine-cosine table of a grid, class token's row zero: `[1 N(+1) D]`."""
    table = posemb.sincos(grid, encoder.width, kind == "sincos_big_vision")
    return posemb.with_cls(table, encoder.cls)
