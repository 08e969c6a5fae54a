"""Writes a ViT as timm or Google have it: their names for the arrays, and a config."""

import dataclasses
import math
from typing import Any

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import google, preparing, timm
from vit_ssl_jax.interop.sources import HALF
from vit_ssl_jax.interop.table import export_params
from vit_ssl_jax.ops import posemb

TIMM_EPS = 1e-6  # timm's ViTs have no other, as far as a config.json can say
GELU = {"exact": "gelu", "tanh": "gelu_tanh"}  # timm's names


@dataclasses.dataclass(frozen=True)
class Part:
    """What is written: a ViT, and the classifier on it where `num_classes` isn't 0."""

    encoder: Any
    num_classes: int = 0
    pool: str = ""
    representation: int = 0


def part_of(model, params) -> Part:
    """The `Part` of a method's model of which these are the parameters."""
    if hasattr(model, "num_classes") and hasattr(model, "pool") and "head" in params:
        return Part(model.encoder, model.num_classes, model.pool, model.representation)
    return Part(model.encoder)


def to_timm(model, params, config) -> tuple[dict, dict]:
    """`(state_dict, config.json)` for `timm.create_model("local-dir:FOLDER")`.

    model, params: of a method, `params` with its encoder and, of the supervised, its
    head. config: the run's. Raises UserError for what timm's ViT hasn't.
    """
    check_timm(model.encoder)
    part, params = with_table(part_of(model, params), params)
    class_row = not part.encoder.registers
    if not class_row:
        params = fold_class_position(params)
    if part.num_classes:
        rows = timm.classifier_rows(part, class_row=class_row)
    else:
        rows = timm.encoder_rows(part.encoder, class_row=class_row)
        params = {"encoder": params["encoder"]}
    return export_params(rows, params), timm_config(part, class_row, config["data"])


def check_timm(vit):
    """Raises UserError where a ViT has what timm's hasn't, or can't be told."""
    if vit.rope:
        raise UserError("--to=timm: its ViT has no rotary positions; --to=hf has")
    if vit.form.qkv_bias == "qv":
        raise UserError("--to=timm: its ViT has keys with a bias, or none at all")
    if not math.isclose(vit.style.norm_eps, TIMM_EPS):
        raise UserError(
            f"--to=timm: a LayerNorm epsilon of {vit.style.norm_eps:g} can't be told to "
            f"it, only {TIMM_EPS:g}; --to=hf can"
        )


def timm_config(part, class_row, data) -> dict:
    """timm's config.json: which model, its arguments, how images are prepared."""
    args, size = timm_args(part, class_row), part.encoder.size
    gated = part.encoder.form.mlp == "swiglu"
    return dict(
        architecture="vit_giant_patch14_reg4_dinov2"
        if gated
        else "vit_base_patch16_224",
        num_classes=part.num_classes,
        num_features=part.encoder.width,
        global_pool=args["global_pool"],
        model_args=args,
        pretrained_cfg=dict(
            input_size=[3, *size],
            fixed_input_size=True,
            **preparing.to_timm(data),
            num_classes=part.num_classes,
            first_conv="patch_embed.proj",
            classifier="head",
        ),
    )


def timm_args(part, class_row) -> dict:
    """Arguments of timm's VisionTransformer."""
    vit, mean = part.encoder, part.pool == "mean"
    how = part.pool or ("cls" if vit.cls else "mean")
    gated = vit.form.mlp == "swiglu"  # its architecture brings the activation
    return dict(
        img_size=list(vit.size),
        patch_size=vit.patch,
        embed_dim=vit.width,
        depth=vit.depth,
        num_heads=vit.heads,
        mlp_ratio=vit.hidden * (2 if gated else 1) / vit.width,
        class_token=vit.cls,
        reg_tokens=vit.registers,
        no_embed_class=not class_row,
        pos_embed="none" if vit.posemb == "none" else "learn",
        qkv_bias=vit.form.qkv_bias == "qkv",
        init_values=vit.form.layerscale or None,
        global_pool="token" if how == "cls" else "avg",
        fc_norm=mean,
        final_norm=vit.final_norm or mean,
        num_classes=part.num_classes,
        **({} if gated else {"act_layer": GELU[vit.style.gelu]}),
    )


def to_google(model, params, config) -> tuple[dict, dict]:
    """`(arrays, {})` under Google's names, to be saved as `.npz`."""
    vit = model.encoder
    form = vit.form
    if vit.rope or vit.registers or form.layerscale or form.mlp != "gelu":
        raise UserError(
            "--to=npz: Google's ViT has no registers, rotary positions, LayerScale or "
            "SwiGLU; --to=hf takes it"
        )
    if form.qkv_bias != "qkv" or not vit.final_norm:
        raise UserError(
            "--to=npz: Google's ViT has biases, and norms tokens before they are pooled; "
            "--to=timm takes this one"
        )
    del config
    model, params = with_table(part_of(model, params), params)
    if model.num_classes:
        return export_params(google.classifier_rows(model), params), {}
    rows = google.encoder_rows(model.encoder)
    return export_params(rows, {"encoder": params["encoder"]}), {}


def differs_from_google(vit, config) -> list:
    """Facts that Google's code would take otherwise: lines to say."""
    lines = []
    if vit.style.gelu != "tanh":
        lines.append("GELU: exact here, approximate (tanh) in Google's code")
    if not math.isclose(vit.style.norm_eps, 1e-6):
        lines.append(f"LayerNorm: epsilon {vit.style.norm_eps:g} here, 1e-6 there")
    if tuple(config["data"]["mean"]) != HALF["mean"]:
        lines.append(f"images: mean {tuple(config['data']['mean'])} here, 0.5 there")
    return lines


def with_table(model, params):
    """A model whose fixed position table is a parameter, and its parameters."""
    vit = model.encoder
    if not vit.posemb.startswith("sincos"):
        return model, params
    table = posemb.sincos(vit.grid, vit.width, vit.posemb == "sincos_big_vision")
    encoder = {**params["encoder"], "posemb": posemb.with_cls(table, vit.cls)}
    model = dataclasses.replace(model, encoder=vit.clone(posemb="learned"))
    return model, {**params, "encoder": encoder}


def fold_class_position(params) -> dict:
    """Adds the class token's position to it, for layouts that have no row for it."""
    encoder = dict(params["encoder"])
    if "posemb" in encoder and "cls" in encoder:
        table = np.array(encoder["posemb"])
        encoder["cls"] = np.asarray(encoder["cls"]) + table[:, :1]
        table[:, :1] = 0
        encoder["posemb"] = table
    return {**params, "encoder": encoder}
