"""Google's ViT, AugReg and big_vision: `.npz` files with flax's names and kernels.

`Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/query/kernel [D A E]` and so
on. Files from before linen count a block's parts 0 to 3, later ones each kind by itself.
"""

import re

import numpy as np

from vit_ssl_jax.interop.table import row

BLOCK = "Transformer/encoderblock_{i}/"
OLD = dict(norm1="LayerNorm_0", attn="MultiHeadDotProductAttention_1")
OLD |= dict(norm2="LayerNorm_2", mlp="MlpBlock_3")
LINEN = dict(norm1="LayerNorm_0", attn="MultiHeadDotProductAttention_0")
LINEN |= dict(norm2="LayerNorm_1", mlp="MlpBlock_0")
POSEMB = "Transformer/posembed_input/pos_embedding"
POSEMB_TOP = "pos_embedding"  # big_vision's later files


def numbering(arrays):
    """How a file counts a block's parts: LINEN or OLD."""
    return LINEN if any("/MlpBlock_0/" in name for name in arrays) else OLD


def posemb_name(arrays):
    """Where a file has its position table."""
    return POSEMB if POSEMB in arrays else POSEMB_TOP


def classifier_rows(model, names=OLD, posemb=POSEMB):
    """Rows of `methods.supervised.Supervised`; "pre_logits" is its representation."""
    rows = encoder_rows(model.encoder, names, posemb)
    width = model.encoder.width
    if model.representation:
        rows += dense("pre_logits", "representation", (width, model.representation))
        width = model.representation
    return rows + dense("head", "head", (width, model.num_classes))


def encoder_rows(vit, names=OLD, posemb=POSEMB):
    """Rows of a `models.vit.ViT` called `encoder`."""
    kernel = (vit.patch, vit.patch, 3, vit.width)
    flat = (vit.patch * vit.patch * 3, vit.width)
    rows = [
        row("embedding/kernel", "encoder/patch/kernel", kernel, None, ours_shape=flat),
        row("embedding/bias", "encoder/patch/bias", (vit.width,), None),
    ]
    if vit.cls:
        rows.append(row("cls", "encoder/cls", (1, 1, vit.width), None))
    if vit.posemb == "learned":
        shape = (1, vit.grid[0] * vit.grid[1] + vit.cls, vit.width)
        rows.append(row(posemb, "encoder/posemb", shape, None))
    rows += block_rows(vit, names)
    if vit.final_norm:
        rows += norm("Transformer/encoder_norm", "encoder/norm", vit.width, None)
    return rows


def block_rows(vit, names):
    """All blocks: queries, keys and values lie apart, in flax's order."""
    width, hidden, depth, heads = vit.width, vit.hidden, vit.depth, vit.heads
    ours, part = "encoder/blocks/block", width // heads
    attn, mlp = BLOCK + names["attn"], BLOCK + names["mlp"]
    kernels, biases = (
        tuple(f"{attn}/{x}/{kind}" for x in ("query", "key", "value"))
        for kind in ("kernel", "bias")
    )
    return [
        *norm(BLOCK + names["norm1"], f"{ours}/norm1", width, depth),
        row(
            kernels,
            f"{ours}/attn/qkv/kernel",
            (3 * width, heads, part),
            depth,
            split=(3, width, heads, part),
            order=(1, 0, 2, 3),
        ),
        row(
            biases,
            f"{ours}/attn/qkv/bias",
            (3 * heads, part),
            depth,
            split=(3, heads, part),
        ),
        row(
            f"{attn}/out/kernel", f"{ours}/attn/out/kernel", (heads, part, width), depth
        ),
        row(f"{attn}/out/bias", f"{ours}/attn/out/bias", (width,), depth),
        *norm(BLOCK + names["norm2"], f"{ours}/norm2", width, depth),
        *dense(f"{mlp}/Dense_0", f"{ours}/mlp/up", (width, hidden), depth),
        *dense(f"{mlp}/Dense_1", f"{ours}/mlp/down", (hidden, width), depth),
    ]


def dense(theirs, ours, shape, depth=None):
    """Dense: the same on both sides."""
    return [
        row(f"{theirs}/kernel", f"{ours}/kernel", shape, depth),
        row(f"{theirs}/bias", f"{ours}/bias", shape[-1:], depth),
    ]


def norm(theirs, ours, width, depth):
    """LayerNorm: the same on both sides."""
    return [
        row(f"{theirs}/{x}", f"{ours}/{x}", (width,), depth) for x in ("scale", "bias")
    ]


def tidy(arrays):
    """Arrays under the names of this file, whoever saved them.

    big_vision's have `params/` in front, and blocks that are scanned lie in one array.
    """
    kept = {k: v for k, v in arrays.items() if not re.match(r"(opt|opt_state)/", k)}
    kept = {re.sub(r"^(params/|img/)+", "", k): v for k, v in kept.items()}
    tidied = {}
    for name, array in kept.items():
        scanned = re.fullmatch(r"Transformer/encoderblock/(.*)", name)
        if not scanned:
            tidied[name] = array
            continue
        for i, layer in enumerate(np.asarray(array)):
            tidied[BLOCK.format(i=i) + scanned[1]] = layer
    return tidied
