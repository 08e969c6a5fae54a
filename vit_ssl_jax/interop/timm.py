"""timm's ViT (https://github.com/huggingface/pytorch-image-models), whose names most
torch ViTs share.

Theirs: a convolution `[D C P P]` as patch embedding, one fused `qkv.weight [3*A*E D]`
with q, k, v in front of the heads, `proj.weight [D A*E]`, fc1, fc2.
"""

from vit_ssl_jax.interop.table import Fixed, dense_rows, norm_rows, row
from vit_ssl_jax.ops import posemb

CHANNELS = 3


def classifier_rows(model):
    """Rows of `methods.supervised.Supervised`: timm pooling "token" (norm), "avg"
    (fc_norm after the mean)."""
    rows = encoder_rows(model.encoder)
    if model.pool == "mean":
        rows += norm_rows("fc_norm", "norm", model.encoder.width, None)
    return rows + dense_rows(
        "head", "head", model.encoder.width, model.num_classes, None
    )


def encoder_rows(vit):
    """Rows of a `models.vit.ViT` called `encoder`."""
    rows = patch_rows(vit.patch, vit.width)
    if vit.cls:
        rows.append(row("cls_token", "encoder/cls", (1, 1, vit.width), None))
    if vit.posemb == "learned":
        shape = (1, vit.grid[0] * vit.grid[1] + vit.cls, vit.width)
        rows.append(row("pos_embed", "encoder/posemb", shape, None))
    elif vit.posemb == "sincos":
        rows.append(Fixed("pos_embed", sincos(vit.grid, vit.width, vit.cls)))
    rows += block_rows(
        "blocks",
        "encoder",
        width=vit.width,
        hidden=vit.hidden,
        heads=vit.heads,
        depth=vit.depth,
    )
    if vit.final_norm:
        rows += norm_rows("norm", "encoder/norm", vit.width, None)
    return rows


def sincos(grid, width, cls):
    """Fixed sine-cosine table `[1 N(+1) D]`; a class token's row is zero."""
    return posemb.with_cls(posemb.sincos(grid, width), cls)


def patch_rows(patch, width):
    """Convolution `[D C P P]` <-> kernel `[P*P*C D]` in (row, column, channel) order."""
    conv = (width, CHANNELS, patch, patch)
    kernel = (patch * patch * CHANNELS, width)
    return [
        row(
            "patch_embed.proj.weight",
            "encoder/patch/kernel",
            conv,
            None,
            order=(2, 3, 1, 0),
            ours_shape=kernel,
        ),
        row("patch_embed.proj.bias", "encoder/patch/bias", (width,), None),
    ]


def block_rows(theirs, ours, *, width, hidden, heads, depth):
    """All blocks of a stack: `{theirs}.{i}.*` <-> `{ours}/blocks/block/*`."""
    theirs, ours = f"{theirs}.{{i}}", f"{ours}/blocks/block"
    head = (heads, width // heads)
    qkv, out = (f"{ours}/attn/{name}" for name in ("qkv", "out"))
    weight = (3 * width, width)
    return [
        *norm_rows(f"{theirs}.norm1", f"{ours}/norm1", width, depth),
        row(
            f"{theirs}.attn.qkv.weight",
            f"{qkv}/kernel",
            weight,
            depth,
            split=(3, *head, width),
            order=(3, 0, 1, 2),
        ),
        row(
            f"{theirs}.attn.qkv.bias",
            f"{qkv}/bias",
            weight[:1],
            depth,
            split=(3, *head),
        ),
        row(
            f"{theirs}.attn.proj.weight",
            f"{out}/kernel",
            (width, width),
            depth,
            split=(width, *head),
            order=(1, 2, 0),
        ),
        row(f"{theirs}.attn.proj.bias", f"{out}/bias", (width,), depth),
        *norm_rows(f"{theirs}.norm2", f"{ours}/norm2", width, depth),
        *dense_rows(f"{theirs}.mlp.fc1", f"{ours}/mlp/up", width, hidden, depth),
        *dense_rows(f"{theirs}.mlp.fc2", f"{ours}/mlp/down", hidden, width, depth),
    ]
