"""Writes a ViT as transformers has it: its names for the arrays, and its config."""

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import export, fair, names, timm
from vit_ssl_jax.interop.table import export_params

HF_ACT = {"exact": "gelu", "tanh": "gelu_pytorch_tanh"}


def to_hf(model, params, config) -> tuple[dict, dict]:
    """`(state_dict, config.json)` for transformers' `from_pretrained`.

    ViTMAE with its decoder for MAE; DINOv3, DINOv2 (with registers) by the form of the
    blocks; IJepa without a class token; else ViT. Raises UserError for what they lack.
    """
    if hasattr(model, "decoder") and "decoder" in params:
        vit = model.encoder
        rows, kind = fair.hf_mae_rows(model), "vit_mae"
        state = add_prefix(export_params(rows, params), "vit.", ("decoder.",))
        more = dict(
            architectures=["ViTMAEForPreTraining"],
            decoder_hidden_size=model.decoder.width,
            decoder_num_hidden_layers=model.decoder.depth,
            decoder_num_attention_heads=model.decoder.heads,
            decoder_intermediate_size=model.decoder.hidden,
            mask_ratio=config["method"]["mask_ratio"],
            norm_pix_loss=config["method"]["norm_pixels"],
        )
        return state, hf_config(vit, kind) | more
    model, params = export.with_table(export.part_of(model, params), params)
    vit = model.encoder
    if not vit.final_norm:
        raise UserError(
            "--to=hf: its ViT norms tokens before they are pooled, this one after (its "
            "pool is 'mean'); --to=timm takes it"
        )
    kind, architecture, table = hf_kind(vit)
    if model.num_classes and kind == "vit" and model.pool == "cls":
        prefixed = add_prefix(
            export_params(timm.classifier_rows(model, table), params),
            "vit.",
            ("classifier.",),
        )
        labels = {str(i): f"LABEL_{i}" for i in range(model.num_classes)}
        more = dict(id2label=labels, label2id={v: int(k) for k, v in labels.items()})
        about = hf_config(vit, kind) | more
        return prefixed, about | {"architectures": ["ViTForImageClassification"]}
    state = export_params(timm.encoder_rows(vit, table), {"encoder": params["encoder"]})
    if kind == "vit":  # its pooler is no part of ours, and a strict load wants one
        width = (vit.width, vit.width)
        state["pooler.dense.weight"] = np.zeros(width, np.float32)
        state["pooler.dense.bias"] = np.zeros(vit.width, np.float32)
    return state, hf_config(vit, kind) | {"architectures": [architecture]}


def hf_kind(vit):
    """`(model_type, class, table of names)` of transformers that a ViT is."""
    if vit.rope:
        if vit.posemb != "none" or not vit.form.layerscale or not vit.cls:
            raise UserError(
                "--to=hf: DINOv3's ViT has rotary positions alone, LayerScale and a class "
                "token; this one hasn't"
            )
        return "dinov3_vit", "DINOv3ViTModel", names.HF_DINOV3
    if vit.posemb == "none":
        raise UserError("--to=hf: its ViTs have positions; --to=timm takes this one")
    if vit.form.layerscale and vit.cls:
        if vit.registers:
            kind = "dinov2_with_registers", "Dinov2WithRegistersModel"
        else:
            kind = "dinov2", "Dinov2Model"
        return *kind, names.HF_DINOV2
    plain = not (vit.registers or vit.form.layerscale or vit.form.mlp == "swiglu")
    if not plain or vit.form.qkv_bias == "qv":
        raise UserError(
            "--to=hf: none of its ViTs has this form (registers and SwiGLU come with "
            "LayerScale there); --to=timm may take it"
        )
    if vit.cls:
        return "vit", "ViTModel", names.HF_VIT
    return "ijepa", "IJepaModel", names.HF_VIT


def hf_config(vit, kind) -> dict:
    """The config.json of a ViT."""
    if vit.size[0] != vit.size[1]:
        raise UserError(f"--to=hf: its images are square, not {vit.size}")
    about = dict(
        model_type=kind,
        hidden_size=vit.width,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.heads,
        hidden_act=HF_ACT[vit.style.gelu],
        layer_norm_eps=vit.style.norm_eps,
        image_size=vit.size[0],
        patch_size=vit.patch,
        num_channels=3,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        qkv_bias=vit.form.qkv_bias == "qkv",
    )
    if not kind.startswith("dino"):
        return about | dict(intermediate_size=vit.hidden)
    about |= dict(
        layerscale_value=vit.form.layerscale,
        drop_path_rate=0.0,
        num_register_tokens=vit.registers,
    )
    gated = vit.form.mlp == "swiglu"
    if kind == "dinov3_vit":
        biases = "qkv".partition("k") if vit.form.qkv_bias == "qkv" else ()
        return about | dict(
            intermediate_size=vit.hidden,
            rope_theta=vit.rope,
            use_gated_mlp=gated,
            hidden_act="silu" if gated else about["hidden_act"],
            query_bias=vit.form.qkv_bias != "none",
            value_bias=vit.form.qkv_bias != "none",
            key_bias=bool(biases),
        )
    ratio = find_ratio(vit) if gated else vit.hidden // vit.width
    if not gated and ratio * vit.width != vit.hidden:
        raise UserError(
            f"--to=hf: DINOv2's MLP is whole widths wide, not {vit.hidden / vit.width:g}; "
            "--to=timm takes it"
        )
    return about | dict(mlp_ratio=ratio, use_swiglu_ffn=gated)


def find_ratio(vit):
    """DINOv2's `mlp_ratio` that gives a gated MLP of a ViT's width."""
    for ratio in range(1, 65):
        hidden = (int(int(vit.width * ratio) * 2 / 3) + 7) // 8 * 8
        if hidden == vit.hidden:
            return ratio
    raise UserError(f"--to=hf: no mlp_ratio of its gives an MLP of width {vit.hidden}")


def add_prefix(state, prefix, but) -> dict:
    """A state_dict with a prefix before all names but those that begin with `but`."""
    return {
        name if name.startswith(but) else prefix + name: x for name, x in state.items()
    }
