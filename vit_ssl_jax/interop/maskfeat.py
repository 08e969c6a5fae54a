"""MaskFeat checkpoints of facebookresearch/SlowFast and open-mmlab/mmpretrain.

Both are the same network. SlowFast keeps timm's names in the encoder, without its norm,
which belongs to the prediction head there; mmpretrain has names of its own.
"""

import re

from vit_ssl_jax.interop import timm
from vit_ssl_jax.interop.table import dense_rows, norm_rows, row

# SlowFast's name, as a pattern -> mmpretrain's.
MMPRETRAIN = (
    (r"pred_head\.transforms\.0\.0", "backbone.ln1"),
    (r"pred_head\.projections\.0", "neck.fc"),
    (r"patch_embed\.proj", "backbone.patch_embed.projection"),
    (r"blocks", "backbone.layers"),
    (r"(cls_token|pos_embed|mask_token)", r"backbone.\1"),
)
IN_BLOCKS = (
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
CONSTANTS = r"hogs\.\d+\..*|target_generator\..*"  # Sobel's kernel, the window


def slowfast_rows(model):
    """Rows of `methods.maskfeat.MaskFeat` (`models/masked.py`)."""
    width = model.encoder.width
    return [
        *timm.encoder_rows(model.encoder.clone(final_norm=False)),
        row("mask_token", "mask_token", (1, 1, width), None),
        *norm_rows("pred_head.transforms.0.0", "encoder/norm", width, None),
        *dense_rows("pred_head.projections.0", "head", width, model.features, None),
    ]


def mmpretrain_rows(model):
    """Rows of `MaskFeat` by mmpretrain's names (`selfsup/maskfeat.py`)."""
    return [r.renamed(mmpretrain_name) for r in slowfast_rows(model)]


def mmpretrain_name(name):
    """mmpretrain's name of a parameter from SlowFast's."""
    for theirs, mine in MMPRETRAIN:
        name = re.sub(rf"^{theirs}", mine, name)
    for theirs, mine in IN_BLOCKS:
        name = re.sub(theirs, mine, name)
    return name


def drop_constants(state_dict):
    """A state_dict without the constants of the histograms' layer."""
    return {n: x for n, x in state_dict.items() if not re.fullmatch(CONSTANTS, n)}
