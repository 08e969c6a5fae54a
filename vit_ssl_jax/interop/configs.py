"""The config of the run that a file of weights could be of, for `weights.py`."""

from vit_ssl_jax import recipes
from vit_ssl_jax.interop import measure, preparing, relvit
from vit_ssl_jax.models import variants


def make_config(found):
    """The config of the run that the weights could be of."""
    config = recipes.load(found.source.recipe)
    shape, facts = found.shape, found.facts
    size = tuple(side * shape["patch"] for side in shape["grid"])
    config.recipe = f"weights:{found.source.name}"
    config.vit.variant = variants.encode(shape)
    config.vit.cls, config.vit.posemb = shape["cls"], shape["posemb"]
    config.vit.norm_eps, config.vit.gelu = float(facts["norm_eps"]), facts["gelu"]
    config.vit.droppath = config.vit.dropout = 0.0
    config.vit.dtype = "float32"
    config.data.size = size
    crop_pct = facts.get("crop_pct", preparing.CROP_PCT)
    config.data.resize = preparing.find_resize(size, crop_pct)
    config.data.squash = facts.get("squash", False)
    if "interpolation" in facts:
        config.data.interpolation = facts["interpolation"]
    config.data.mean = tuple(facts["mean"] or (0.0,) * 3)
    config.data.std = tuple(facts["std"] or (1.0,) * 3)
    of_method = {
        "mae": of_mae,
        "ijepa": of_ijepa,
        "maskfeat": of_maskfeat,
        "relvit": of_relvit,
        "supervised": of_supervised,
    }
    of_method[config.method.name](config, found)
    return config


def of_mae(config, found):
    """The decoder's sizes; published ones have 16 heads."""
    names, state = ("decoder_embed.weight", "decoder_blocks.{i}."), found.state
    if found.source.name == "hf-vitmae":
        names = "decoder.decoder_embed.weight", "decoder.decoder_layers.{i}."
    config.method.decoder_width = len(state[names[0]])
    config.method.decoder_depth = measure.count_blocks(state, names[1])
    table = dict(posemb=names[0].replace("embed.weight", "pos_embed"))
    places = measure.measure_posemb(
        state, table, found.shape["cls"], found.shape["patch"], found.facts
    )
    config.method.decoder_posemb = places["posemb"]
    config.method.decoder_heads = found.facts.get("decoder_heads", 16)
    config.method.norm_pixels = bool(found.facts.get("norm_pixels", True))


def of_ijepa(config, found):
    """The predictor's sizes; it has as many heads as its encoder."""
    state = found.state["predictor"]
    config.method.predictor_width = len(state["predictor_embed.weight"])
    blocks = "predictor_blocks.{i}."
    config.method.predictor_depth = measure.count_blocks(state, blocks)
    config.method.predictor_heads = found.shape["heads"]
    rows, cols = found.shape["grid"]
    config.method.max_context = 0  # the recipe's is for its own grid
    config.method.min_keep = min(config.method.min_keep, rows * cols // 8)


def of_maskfeat(config, found):
    """The cells of the histograms are half a patch."""
    config.method.cell = found.shape["patch"] // 2


def of_relvit(config, found):
    """The tasks whose heads the file has; without labels its patches have no positions."""
    has = {name.partition(".")[0] for name in found.state}
    for task, theirs in [*relvit.PAIRS.items(), ("positions", "abs_pos_head")]:
        config.method[task] = float(theirs in has)
    config.method.labels = float("clf_head" in has)
    if "clf_head" not in has:
        config.vit.posemb = "none"
    else:
        config.data.num_classes = len(found.state["clf_head.weight"])


def of_supervised(config, found):
    """Pooling and classifier; without one the config has ImageNet's number of classes."""
    google = found.source.name == "google"
    config.method.representation = 0
    if google and found.classes and "pre_logits/kernel" in found.state:
        config.method.representation = found.state["pre_logits/kernel"].shape[1]
    config.method.ema = 0.0
    if not google and "fc_norm.weight" in found.state:
        config.method.pool = "mean"
    else:
        config.method.pool = "cls" if found.shape["cls"] else "normed_mean"
    config.data.num_classes = found.classes or 1000
