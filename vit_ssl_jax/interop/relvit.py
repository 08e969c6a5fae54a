"""Checkpoints of guglielmocamporese/relvit (PyTorch Lightning).

Their backbone has timm's names. Every pair head has three matrices a class, `q_lin`,
`k_lin` and `v_lin`, of which the last takes part in nothing: an import drops it and an
export has none, so torch loads an export with `strict=False` and keeps fresh ones. The
same goes for `backbone.pos_embed`, which is always stored, where the encoder has no
positions (upstream).
"""

import re

from vit_ssl_jax.interop import timm
from vit_ssl_jax.interop.table import dense_rows, export_params, import_params, row
from vit_ssl_jax.ops import relations

PAIRS = {"relations": "rel_head", "distances": "dist_head", "angles": "angle_head"}


def relvit_rows(model):
    """Rows of `methods.relvit.RelViT`: backbone and the heads of its tasks."""
    rows = backbone_rows(model.encoder)
    width = model.encoder.width
    for task, theirs in PAIRS.items():
        if task in model.tasks:
            count = relations.RELATIONS if task == "relations" else 1
            rows += pair_rows(theirs, task, count, width)
    if "positions" in model.tasks:
        size = model.num_positions
        rows += dense_rows("abs_pos_head", "positions", width, size, None)
    if "labels" in model.tasks:
        rows += dense_rows("clf_head", "head", width, model.num_classes, None)
    return rows


def classifier_rows(model):
    """Rows of `methods.supervised.Supervised` with pool "cls": what they fine-tune."""
    head = dense_rows("clf_head", "head", model.encoder.width, model.num_classes, None)
    return backbone_rows(model.encoder) + head


def backbone_rows(vit):
    """Rows of the encoder: timm's names behind `backbone.`"""
    return [r.renamed(lambda name: f"backbone.{name}") for r in timm.encoder_rows(vit)]


def pair_rows(theirs, ours, heads, width):
    """Queries and keys of a `models.outputs.PairScores`: `[D // R, D]` <-> `[R D D // R]`."""
    shape = (width // heads, width)
    return [
        row(
            f"{theirs}.heads.{{i}}.{short}_lin.weight",
            f"{ours}/{name}",
            shape,
            heads,
            order=(1, 0),
        )
        for short, name in (("q", "query"), ("k", "key"))
    ]


def import_relvit(rows, checkpoint):
    """Our params from their whole Lightning checkpoint or its `state_dict` alone.

    Their `v_lin` and, where `rows` has no position table, theirs are dropped.
    """
    state_dict = checkpoint.get("state_dict", checkpoint)
    known = {name for r in rows for name in r.names}
    unused = re.compile(r"\w+_head\.heads\.\d+\.v_lin\.weight|backbone\.pos_embed")
    return import_params(
        rows,
        {
            name: x
            for name, x in state_dict.items()
            if name in known or not unused.fullmatch(name)
        },
    )


def export_relvit(rows, params):
    """Converts our params to their checkpoint, `{"state_dict": {...}}`, no `v_lin`."""
    return {"state_dict": export_params(rows, params)}
