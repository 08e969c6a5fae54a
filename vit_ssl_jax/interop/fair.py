"""Pre-training checkpoints of facebookresearch/mae, /ijepa and /dino.

All keep timm's names in the encoder. Their fixed sine-cosine tables are no parameters
of ours: an import compares them, an export makes them anew.
"""

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import timm
from vit_ssl_jax.interop.names import HF_VIT, TIMM
from vit_ssl_jax.interop.table import (
    Fixed,
    dense_rows,
    export_params,
    import_params,
    norm_rows,
    row,
)


def mae_rows(model):
    """Rows of `methods.mae.MAE`: encoder and decoder (`models_mae.py`)."""
    mask_token = row(
        "mask_token", "decoder/mask_token", (1, 1, model.decoder.width), None
    )
    return [
        *timm.encoder_rows(model.encoder),
        mask_token,
        *decoder_rows(model.decoder, "decoder", "pred", model.encoder.width),
    ]


def predictor_rows(predictor, inputs):
    """Rows of I-JEPA's predictor over an encoder of width `inputs`."""
    shape = (1, 1, predictor.width)
    return [
        row("mask_token", "predictor/mask_token", shape, None),
        *decoder_rows(predictor, "predictor", "proj", inputs),
    ]


def decoder_rows(decoder, name, head, inputs):
    """Rows of a `models.decoder.Decoder` that both sides call `name`."""
    names = TIMM | {"block": f"{name}_blocks.{{i}}."}
    return narrow_rows(decoder, name, f"{name}_", head, inputs, names)


def narrow_rows(decoder, ours, theirs, head, inputs, names):
    """Rows of a `Decoder` called `ours`, whose names there begin with `theirs`."""
    width, name = decoder.width, f"{theirs}pos_embed"
    table = timm.sincos(decoder.grid, width, decoder.cls)
    places = Fixed(name, table)
    if decoder.posemb == "learned":
        places = row(name, f"{ours}/posemb", table.shape, None)
    return [
        places,
        *dense_rows(f"{theirs}embed", f"{ours}/embed", inputs, width, None),
        *timm.block_rows(
            names,
            ours,
            width=width,
            hidden=decoder.hidden,
            heads=decoder.heads,
            depth=decoder.depth,
        ),
        *norm_rows(f"{theirs}norm", f"{ours}/norm", width, None),
        *dense_rows(f"{theirs}{head}", f"{ours}/head", width, decoder.features, None),
    ]


def hf_mae_rows(model):
    """Rows of `methods.mae.MAE` under transformers' names, `vit.` left out.

    Its decoder's layers are `decoder.decoder_layers.{i}`, as in published files.
    """
    width, theirs = model.decoder.width, "decoder.decoder_"
    names = HF_VIT | {"block": theirs + "layers.{i}."}
    return [
        *timm.encoder_rows(model.encoder, HF_VIT),
        row("decoder.mask_token", "decoder/mask_token", (1, 1, width), None),
        *narrow_rows(
            model.decoder, "decoder", theirs, "pred", model.encoder.width, names
        ),
    ]


def ijepa_rows(model):
    """Rows of each of I-JEPA's state_dicts, by its name in the checkpoint."""
    encoder = timm.encoder_rows(model.encoder)
    return {
        "encoder": encoder,
        "predictor": predictor_rows(model.predictor, model.encoder.width),
        "target_encoder": encoder,
    }


def dino_rows(model):
    """Rows of `methods.dino.DINO`, student or teacher: `backbone.` and `head.`."""
    head, width = model.head, model.encoder.width
    encoder = [
        r.renamed("backbone.{}".format) for r in timm.encoder_rows(model.encoder)
    ]
    sizes = width, head.hidden, head.hidden, head.bottleneck
    rows = []
    for i, name in enumerate(("first", "second", "bottleneck")):
        rows += dense_rows(
            f"head.mlp.{2 * i}", f"head/{name}_embed", *sizes[i : i + 2], None
        )
    last, shape = "head.last_layer.weight", (head.prototypes, head.bottleneck)
    rows.append(row(f"{last}_v", "head/prototypes", shape, None, order=(1, 0)))
    gains = (head.prototypes, 1)
    if head.norm_last:
        return [*encoder, *rows, Fixed(f"{last}_g", np.ones(gains, np.float32))]
    gain = row(f"{last}_g", "head/gain", gains, None, ours_shape=gains[:1])
    return [*encoder, *rows, gain]


def import_ijepa(model, checkpoint):
    """Converts `{encoder, predictor, target_encoder}` to our params and ema.

    Names may have the prefix `module.` of torch's DistributedDataParallel; what else
    the checkpoint holds (opt, epoch, ...) is left alone.
    """
    rows = ijepa_rows(model)
    missing = sorted(set(rows) - set(checkpoint))
    if missing:
        raise UserError(f"checkpoint: not I-JEPA's, it has no {', '.join(missing)}")
    trees = {
        part: import_params(rows[part], strip_module(checkpoint[part])) for part in rows
    }
    return {**trees["encoder"], **trees["predictor"]}, trees["target_encoder"]


def export_ijepa(model, params, ema):
    """Converts our params and ema to `{encoder, predictor, target_encoder}`.

    Names are without `module.`
    """
    trees = {
        "encoder": {"encoder": params["encoder"]},
        "predictor": {"predictor": params["predictor"]},
        "target_encoder": {"encoder": ema["encoder"]},
    }
    rows = ijepa_rows(model)
    return {part: export_params(rows[part], tree) for part, tree in trees.items()}


def strip_module(state_dict):
    """A state_dict with names that lose their prefix `module.`, where they have it."""
    return {name.removeprefix("module."): x for name, x in state_dict.items()}
