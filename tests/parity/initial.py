"""Our initialisers against statistics of the published ones at full size."""

import math
import re
import statistics

import jax
import jax.numpy as jnp

from tests.parity import build, ledger
from vit_ssl_jax.interop import fair, table, timm
from vit_ssl_jax.interop import maskfeat as slowfast
from vit_ssl_jax.methods import mae, maskfeat, supervised

ALPHA = 1e-9  # probability that a right initialiser fails a row, at either side
SIGMAS = 6  # the same, of a normal law
UNDONE = "right after construction"  # I-JEPA's helper.init_model re-draws these
ROUNDING = 1e-6  # of a constant's deviation over its value
FEW = 300  # draws of fewer don't show whether their law is uniform or normal
HEADS = 1  # no initialiser depends on it


def rows(golden):
    """Rows of `init_stats_{mae,ijepa,maskfeat,relvit}`."""
    out = []
    for group, stats in golden.json.items():
        if group == "_len_keep":
            out.append(kept(golden, stats))
        elif is_group(stats) and UNDONE not in group:
            found = draw(stats)
            for name, theirs in stats.items():
                out += compare(golden, f"{group}: {name}", found[name], theirs)
    return out


def is_group(stats):
    """Whether an entry of the JSON has statistics of parameters."""
    entries = stats.values() if isinstance(stats, dict) else [None]
    return all(isinstance(s, dict) and "std" in s for s in entries)


def kept(golden, stats):
    """Row of the number of kept tokens at "L=TOKENS,r=RATIO"."""
    names = [re.fullmatch(r"L=(\d+),r=(.+)", name).groups() for name in stats]
    ours = [mae.kept_tokens(int(n), float(ratio)) for n, ratio in names]
    theirs = list(stats.values())
    return ledger.compare_one(golden, "_len_keep", ours, theirs, ledger.EXACT)


def draw(stats):
    """Initial arrays of ours by the names of a group, whose shapes size the model."""
    shapes = {name: tuple(s["shape"]) for name, s in stats.items()}
    if "predictor_embed.weight" in shapes:
        return draw_predictor(shapes)
    if "decoder_embed.weight" in shapes:
        encoder = make_encoder(shapes, posemb="sincos", init="mae")
        width = shapes["mask_token"][-1]
        features = shapes["decoder_pred.weight"][0]
        decoder = narrow(encoder, "decoder", shapes, width, features)
        model = mae.MAE(encoder, decoder)
        return initialise(model, fair.mae_rows(model), mae_views(encoder))
    if "pred_head.projections.0.weight" in shapes:
        encoder = make_encoder(shapes, posemb="learned", init="slowfast")
        features = shapes["pred_head.projections.0.bias"][0]
        model = maskfeat.MaskFeat(encoder.clone(final_norm=True), features)
        views = mae_views(encoder)
        return initialise(model, slowfast.slowfast_rows(model), views)
    if "head.weight" in shapes:
        encoder = make_encoder(shapes, posemb="learned", init="timm")
        pool = "mean" if "fc_norm.weight" in shapes else "cls"
        model = supervised.Supervised(encoder, pool, shapes["head.weight"][0])
        return initialise(model, timm.classifier_rows(model), mae_views(encoder))
    if "cls_token" in shapes:  # RelViT's backbone
        encoder = make_encoder(shapes, posemb="learned", init="timm")
    else:
        encoder = make_encoder(shapes, posemb="sincos", init="ijepa")
    image = mae_views(encoder)["image"]
    return initialise(encoder, timm.encoder_rows(encoder), image, name="encoder")


def draw_predictor(shapes):
    """The same of I-JEPA's predictor alone."""
    tokens, width = shapes["predictor_pos_embed"][1:]
    features, inputs = (
        shapes["predictor_proj.weight"][0],
        shapes["predictor_embed.weight"][1],
    )
    encoder = build.encoder(
        side=math.isqrt(tokens),
        patch=1,
        width=inputs,
        hidden=inputs,
        depth=1,
        heads=HEADS,
        posemb="sincos",
        cls=False,
        norm=True,
        style=build.style(1e-6, "ijepa"),
    )
    predictor = narrow(encoder, "predictor", shapes, width, features)
    names = fair.predictor_rows(predictor, inputs)
    ids = jnp.zeros((1, 1), int)
    context = jnp.zeros((1, 1, inputs))
    return initialise(predictor, names, context, ids, ids, name="predictor")


def make_encoder(shapes, *, posemb, init):
    """The ViT of a group."""
    tokens, width = shapes["pos_embed"][1:]
    cls = "cls_token" in shapes
    return build.encoder(
        side=math.isqrt(tokens - cls),
        patch=shapes["patch_embed.proj.weight"][-1],
        width=width,
        hidden=shapes["blocks.0.mlp.fc1.bias"][0],
        depth=count(shapes, "blocks"),
        heads=HEADS,
        posemb=posemb,
        cls=cls,
        norm="norm.weight" in shapes,
        style=build.style(1e-6, init),
    )


def narrow(encoder, name, shapes, width, features):
    """The decoder or predictor of a group."""
    return build.narrow(
        encoder,
        width=width,
        hidden=shapes[f"{name}_blocks.0.mlp.fc1.bias"][0],
        depth=count(shapes, f"{name}_blocks"),
        heads=HEADS,
        features=features,
    )


def count(shapes, blocks):
    """Number of blocks."""
    return sum(bool(re.fullmatch(rf"{blocks}\.\d+\.norm1\.bias", n)) for n in shapes)


def mae_views(encoder):
    """Views with the shapes that initialisation needs."""
    ids = jnp.zeros((1, 1), int)
    return {"image": jnp.zeros((1, *encoder.size, 3)), "keep": ids, "hide": ids}


def initialise(model, names, *inputs, name=None):
    """Parameters of a fresh model by their names; `name`: its place in the tree."""
    init = jax.jit(lambda key: model.init(key, *inputs, False)["params"])
    params = init(jax.random.key(0))
    return table.export_params(names, {name: params} if name else params)


def compare(golden, name, ours, theirs):
    """Rows of mean, std and largest value of one parameter."""
    largest = max(ours.max(), -ours.min())
    found = {"mean": ours.mean(), "std": ours.std(), "absmax": largest}
    constant = theirs["std"] <= ROUNDING * theirs["absmax"]
    if constant or not theirs["requires_grad"]:
        limits = {key: (theirs[key], ledger.TENSOR) for key in found}
    else:
        limits = law(theirs, ours.size)
    return [
        ledger.compare_one(golden, f"{name} {key}", value, *limits[key])
        for key, value in found.items()
    ]


def law(theirs, n):
    """Expected value and tolerance of mean, std and largest of n draws.

    Two samples of one law: the means differ by a deviation of `s sqrt(2 / n)`, the
    standard deviations by at most `s / sqrt(n)` (a normal law; less for a uniform one).
    """
    std, largest, ranges = theirs["std"], theirs["absmax"], []
    uniform = largest < 2 * std
    slack = -math.expm1(math.log(ALPHA) / n)
    inverse = statistics.NormalDist().inv_cdf
    low, high = -inverse(slack / 2), -inverse(ALPHA / (2 * n))
    if largest > high * std:  # trunc_normal_'s rare outlier, not to be reproduced
        std = math.sqrt(max(std**2 - largest**2 / n, 0.0))
    if uniform or n < FEW:  # the largest of n is just below the bound
        ranges.append((largest * (1 - slack), largest / (1 - slack)))
    if not uniform or n < FEW:
        ranges.append((low * std, high * std))
    low, high = min(ranges)[0], max(x for _, x in ranges)
    middle, reach = (low + high) / 2, (high - low) / 2
    return {
        "mean": (theirs["mean"], tolerance(SIGMAS * std * math.sqrt(2 / n))),
        "std": (std, tolerance(SIGMAS * std / math.sqrt(n))),
        "absmax": (middle, tolerance(reach)),
    }


def tolerance(absolute):
    """An absolute one."""
    return ledger.Tolerance(absolute=absolute)
