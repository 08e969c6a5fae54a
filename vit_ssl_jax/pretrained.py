"""Starting from the encoder of another run (`config.init_from`)."""

import json

import jax
import jax.numpy as jnp

from vit_ssl_jax import checks, partition, recipes, tokens, weights
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import layers, variants
from vit_ssl_jax.workdir import restore
from vit_ssl_jax.workdir.files import read_dict
from vit_ssl_jax.workdir.folder import find

# What changes the meaning of weights, though they fit.
TELLING = ("vit.gelu", "vit.norm_eps", "vit.posemb", "data.mean", "data.std")
NAMES = ("vit.gelu", "vit.posemb", "vit.variant")
SHAPE = ("vit.variant", "data.size")  # give the grid of patches


def open_saved(path):
    """What a path of trained weights is: a run's `restore.Saved`, or `weights.Weights`.

    `path` is a workdir, a `checkpoints/STEP` in it, or a file or folder of weights that
    other code saved. Raises UserError where it is none.
    """
    if hasattr(path, "read"):
        return path
    runs = not isinstance(path, dict) and (find(path) / "checkpoints").exists()
    if not runs and weights.is_weights(path):
        return weights.read(path)
    return restore.opened(path)


def inherit(config, workdir):
    """Fills in what the recipe leaves to the encoder it starts from; lines to say.

    A run that goes on has it in the config.json of its `workdir`.
    """
    if "otherwise" not in config or not config.init_from:
        recipes.fill(config, {})
        return []
    if begun := read_dict(find(workdir) / "config.json"):
        theirs = recipes.flatten(begun)
    else:
        try:
            saved = open_saved(config.init_from)
            theirs = read_config(saved)
        except UserError as error:
            raise UserError(f"config.init_from: {error}") from error
        for key in getattr(saved, "unknown", ()):
            del theirs[key]
    if "own" in config and not config.vit.variant:
        config.vit.variant = theirs["vit.variant"]
    filled = [key for key in recipes.fill(config, theirs) if key in theirs]
    ours = recipes.flatten(config.to_dict())
    values = ", ".join(f"{key}={ours[key]}" for key in filled)
    return [f"encoder: as it was trained, here too: {values}"] if filled else []


def init_encoder(config, run, state):
    """Puts the encoder of `config.init_from` into a state: `(state, lines to say)`.

    Of published weights of the same method, without labels, all else follows: decoder,
    predictor, teacher. Raises UserError where that encoder doesn't fit.
    """
    try:
        saved = open_saved(config.init_from)
        theirs, like = read_config(saved), run.program.state.params["encoder"]
        published = theirs.get("recipe", "").startswith("weights:")
        same = theirs.get("method.name") == config.method.name
        whole = published and same and not run.method.needs_labels
        part = "params" if whole else ""
        encoder, theirs, lines = load(saved, run.encoder, like, part)
        fresh = state.params["encoder"]
        params = {**state.params, "encoder": tokens.overlay(fresh, encoder)}
        ema = jax.tree.map(jnp.copy, run.method.init_ema(params))
        if whole:
            params, ema, more = init_rest(saved, run, params, ema)
            lines += more
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    ours = recipes.flatten(json.loads(config.to_json_best_effort()))
    unknown = getattr(saved, "unknown", ())
    lines += getattr(saved, "lines", ())
    lines += [
        f"encoder: it was trained with {key}={theirs[key]!r}, here it is {ours[key]!r}"
        for key in TELLING
        if theirs[key] != ours[key] and key not in unknown
    ]
    lines += [
        f"encoder: its file doesn't tell {key}, here it is {ours[key]!r}"
        for key in unknown
    ]
    return state.replace(params=params, ema=ema), lines


def init_rest(saved, run, params, ema):
    """What goes with the encoder, where it fits: `(params, ema, lines to say)`."""
    likes = run.program.state.params
    rest = [name for name in likes if name != "encoder"]
    fits = []

    def choose(tree):
        for name in rest:
            theirs = restore.shapes_of((tree["params"] or {}).get(name, {}))
            if theirs == restore.shapes_of(likes[name]):
                fits.append(name)
        return {"params": {name: likes[name] for name in fits}}

    found = saved.read(choose)["params"] if rest else {}
    lines = [f"{name}: from there, too" for name in fits]
    lines += [
        f"{name}: it has none that fits, it starts anew"
        for name in rest
        if name not in fits
    ]
    if "encoder" in ema:
        teacher, _, _ = load(saved, run.encoder, likes["encoder"])
        ema = {**ema, "encoder": tokens.overlay(ema["encoder"], teacher)}
        lines.append("teacher: from there, too")
    return {**params, **found}, ema, lines


def load(path, encoder, like, part=""):
    """The parameters of another run's encoder, fitted to a ViT of this one.

    Returns `(params, its config as of read_config, lines to say)`. `path` is as in
    `open_saved`, `part` as in `restore.load_encoder`, `encoder` the ViT, `like` its
    parameters as ShapeDtypeStructs with shardings. A position table that is learned from
    here on starts as the one that the encoder was trained with, learned or fixed,
    resampled where the grid of patches is another, as in MAE's fine-tuning. It is
    missing in `params` where there was none, as are class token and registers; those that
    only the other has are left out. Raises UserError where the encoder doesn't fit.
    """
    saved = open_saved(path)
    theirs = check_encoder(saved, encoder)
    params, folder = restore.load_encoder(saved, like, part)
    learned = params.pop("posemb", None)
    table, lines = tokens.place_encoder(learned, encoder, theirs)
    lines += tokens.say_beside(theirs, encoder)
    if table is not None:
        params["posemb"] = partition.put(table, like["posemb"].sharding)
    return params, theirs, [f"encoder: from {folder}", *lines]


def check_encoder(path, encoder):
    """The other run's config; raises UserError where the blocks are of another form."""
    theirs = read_config(open_saved(path))
    shape = variants.decode(theirs["vit.variant"])
    form = layers.Form(**{part: shape[part] for part in variants.OF_BLOCKS})
    if form.kind[1:] != encoder.form.kind[1:]:  # rotary positions are no weights
        raise UserError(
            f"{getattr(path, 'folder', path)}: its ViT is of another kind; set "
            f"--config.vit.variant={theirs['vit.variant']}"
        )
    return theirs


def read_config(path):
    """Reads the config of a checkpoint's encoder: `{dotted key: value}`."""
    config = recipes.flatten(read_whole_config(path))
    missing = [key for key in TELLING + SHAPE if key not in config]
    if missing:
        raise UserError(
            f"the config.json of {path.folder} has no {', '.join(missing)}; is it a run's?"
        )
    ranges = checks.RANGES | dict.fromkeys(NAMES, checks.NAME)
    wanted = {key: ranges[key] for key in TELLING + SHAPE}
    checks.check_values(f"the config.json of {path.folder}: config", config, wanted)
    return config


def read_whole_config(saved):
    """The config of the run that a checkpoint belongs to: nested dicts."""
    if isinstance(saved, weights.Weights):
        return saved.config
    file = saved.home / "config.json"
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict):
            raise TypeError("it is no dict")
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} can't be read ({error}), and only it says how the encoder was "
            "trained; copy it there from the run that wrote the checkpoint"
        ) from error
    return config
