"""Tells what published code wrote a file of weights, and how its ViT is to be run."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vit_ssl_jax.interop import fair, google, maskfeat, names, relvit, timm

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
HF_GELU = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A layout of weights.

    marks: patterns of names, of which each must fit one of the file's. recipe: the config
    whose method and other values it goes with. names: its table, for torch's layouts.
    values: facts of the published code, those of `Found.facts`. rows: `(found, model) ->
    rows`.
    """

    name: str
    marks: tuple
    recipe: str
    names: dict
    rows: Callable
    values: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Found:
    """A file of weights that is understood.

    state: arrays by the source's names; for I-JEPA of each of its parts. shape: as of
    `measure.measure`. facts: norm_eps, gelu, mean, std (None: not known), size, heads.
    says: what was guessed. classes: of its head, 0 without.
    """

    source: Source
    state: Any
    shape: dict
    facts: dict
    says: tuple
    classes: int


def encoder_or_classifier(found, model):
    """Rows of a ViT with or without its head, by the source's table."""
    class_row = found.shape["class_row"]
    if found.classes:
        return timm.classifier_rows(model, found.source.names, class_row)
    return timm.encoder_rows(model.encoder, found.source.names, class_row)


def google_rows(found, model):
    """Rows of Google's, by the file's numbering and place of positions."""
    how = google.numbering(found.state), google.posemb_name(found.state)
    if found.classes:
        return google.classifier_rows(model, *how)
    return google.encoder_rows(model.encoder, *how)


SOURCES = (
    Source(
        name="ijepa",
        marks=("predictor_embed.weight", "patch_embed.proj.weight"),
        recipe="ijepa_vitb.py",
        names=names.TIMM,
        rows=lambda found, model: fair.ijepa_rows(model),
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="mae",
        marks=("decoder_embed.weight", "decoder_blocks.0.", "patch_embed.proj.weight"),
        recipe="mae_vitb.py",
        names=names.TIMM,
        rows=lambda found, model: fair.mae_rows(model),
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="maskfeat-slowfast",
        marks=("pred_head.projections.0.weight", "patch_embed.proj.weight"),
        recipe="maskfeat_vitb.py",
        names=names.TIMM,
        rows=lambda found, model: maskfeat.slowfast_rows(model),
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="maskfeat-mmpretrain",
        marks=("neck.fc.weight", "backbone.patch_embed.projection.weight"),
        recipe="maskfeat_vitb.py",
        names=names.TIMM,
        rows=lambda found, model: maskfeat.mmpretrain_rows(model),
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="relvit",
        marks=(
            "(rel|dist|angle|abs_pos|clf)_head.",
            "backbone.patch_embed.proj.weight",
        ),
        recipe="relvit_vitb.py",
        names=names.TIMM,
        rows=lambda found, model: relvit.relvit_rows(model),
        values=dict(norm_eps=1e-6, gelu="exact", mean=None, std=None),
    ),
    Source(
        name="google",
        marks=("Transformer/encoderblock_0/LayerNorm_0/scale", "embedding/kernel"),
        recipe="supervised_vitb.py",
        names={},
        rows=google_rows,
        values=dict(norm_eps=1e-6, gelu="tanh") | HALF,
    ),
    Source(
        name="hf-vitmae",
        marks=(
            "decoder.decoder_embed.weight",
            "embeddings.patch_embeddings.projection.",
        ),
        recipe="mae_vitb.py",
        names=names.HF_VIT,
        rows=lambda found, model: fair.hf_mae_rows(model),
        values=dict(norm_eps=1e-12, gelu="exact") | IMAGENET,
    ),
    Source(
        name="hf-dinov3",
        marks=("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"),
        recipe="supervised_vitb.py",
        names=names.HF_DINOV3,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-5, gelu="exact", rope=100.0) | IMAGENET,
    ),
    Source(
        name="hf-dinov2",
        marks=("embeddings.cls_token", "encoder.layer.0.layer_scale1.lambda1"),
        recipe="supervised_vitb.py",
        names=names.HF_DINOV2,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="hf-vit",
        marks=("embeddings.cls_token", "encoder.layer.0.layernorm_before.weight"),
        recipe="supervised_vitb.py",
        names=names.HF_VIT,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-12, gelu="exact") | HALF,
    ),
    Source(
        name="hf-ijepa",
        marks=("embeddings.position_embeddings", "encoder.layer.0.layernorm_before."),
        recipe="supervised_vitb.py",
        names=names.HF_VIT,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="dinov3",
        marks=("storage_tokens|rope_embed.periods", "patch_embed.proj.weight"),
        recipe="supervised_vitb.py",
        names=names.DINOV3,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-5, gelu="exact", rope=100.0) | IMAGENET,
    ),
    Source(
        name="dinov2",
        marks=("mask_token", "blocks.0.ls1.gamma", "patch_embed.proj.weight"),
        recipe="supervised_vitb.py",
        names=names.DINOV2,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-6, gelu="exact") | IMAGENET,
    ),
    Source(
        name="timm",
        marks=("patch_embed.proj.weight", "blocks.0.norm1.weight"),
        recipe="supervised_vitb.py",
        names=names.TIMM,
        rows=encoder_or_classifier,
        values=dict(norm_eps=1e-6, gelu="exact", mean=None, std=None),
    ),
)
