"""ViTs of torch's libraries by a table of `names`: timm's own, and all that follow it.

Theirs: a convolution `[D C P P]` as patch embedding, `qkv.weight [3*A*E D]` with q, k, v
in front of the heads, in one piece or three, `proj.weight [D A*E]`, fc1, fc2.
"""

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop.names import TIMM
from vit_ssl_jax.interop.table import Fixed, Row, Unused, dense_rows, norm_rows, row
from vit_ssl_jax.models import layers
from vit_ssl_jax.ops import posemb

CHANNELS = 3
PERIODS = 0.02  # of DINOv3's, stored in bfloat16, as a share


def classifier_rows(model, names=TIMM, class_row=True):
    """Rows of `methods.supervised.Supervised`: timm pooling "token" (norm), "avg"
    (fc_norm after the mean)."""
    rows = encoder_rows(model.encoder, names, class_row)
    if model.pool == "mean":
        rows += norm_rows("fc_norm", "norm", model.encoder.width, None)
    width = model.representation or model.encoder.width
    if model.representation:
        raise UserError(
            "method.representation: these files have no layer before the classifier"
        )
    return rows + dense_rows(names["head"], "head", width, model.num_classes, None)


def encoder_rows(vit, names=TIMM, class_row=True):
    """Rows of a `models.vit.ViT` called `encoder`.

    class_row: whether their position table has a row of the class token; ours has, and
    it is zero where theirs hasn't.
    """
    rows = patch_rows(vit.patch, vit.width, names["patch"])
    if vit.cls:
        rows.append(row(names["cls"], "encoder/cls", (1, 1, vit.width), None))
    if vit.registers:
        shape = (1, vit.registers, vit.width)
        name = known(names, "registers", "registers")
        rows.append(row(name, "encoder/registers", shape, None))
    rows += posemb_rows(vit, names, class_row)
    for name, lead in names.get("unused", {}).items():
        rows.append(Unused(name, (1, *lead, vit.width)))
    rows += block_rows(
        names,
        "encoder",
        width=vit.width,
        hidden=vit.hidden,
        heads=vit.heads,
        depth=vit.depth,
        form=vit.form,
    )
    if vit.final_norm:
        rows += norm_rows(names["norm"], "encoder/norm", vit.width, None)
    return rows


def known(names, part, what):
    """The name of a part; raises UserError where a source's ViTs have no such thing."""
    if part not in names:
        raise UserError(f"config.vit.variant: a ViT with {what} has no names there")
    return names[part]


def posemb_rows(vit, names, class_row):
    """The position table, a parameter or a constant, or rotary periods."""
    rows = []
    if vit.posemb == "learned":
        tokens = vit.grid[0] * vit.grid[1]
        shape = (1, tokens + vit.cls, vit.width)
        if class_row or not vit.cls:
            rows.append(row(names["posemb"], "encoder/posemb", shape, None))
        else:
            rows.append(
                Row(
                    (names["posemb"],),
                    "encoder/posemb",
                    (1, tokens, vit.width),
                    lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0))),
                    lambda x: x[:, 1:],
                    None,
                )
            )
    elif vit.posemb == "sincos":
        rows.append(Fixed(names["posemb"], sincos(vit.grid, vit.width, vit.cls)))
    if vit.rope and "periods" in names:
        count = vit.width // vit.heads // 4
        periods = np.float32(vit.rope ** (np.arange(count) / count))
        rows.append(Fixed(names["periods"], periods, PERIODS * float(periods.max())))
    return rows


def sincos(grid, width, cls):
    """Fixed sine-cosine table `[1 N(+1) D]`; a class token's row is zero."""
    return posemb.with_cls(posemb.sincos(grid, width), cls)


def patch_rows(patch, width, theirs):
    """Convolution `[D C P P]` <-> kernel `[P*P*C D]` in (row, column, channel) order."""
    conv = (width, CHANNELS, patch, patch)
    kernel = (patch * patch * CHANNELS, width)
    return [
        row(
            f"{theirs}.weight",
            "encoder/patch/kernel",
            conv,
            None,
            order=(2, 3, 1, 0),
            ours_shape=kernel,
        ),
        row(f"{theirs}.bias", "encoder/patch/bias", (width,), None),
    ]


def block_rows(names, ours, *, width, hidden, heads, depth, form=None):
    """All blocks of a stack: `names["block"]` ... <-> `{ours}/blocks/block/*`."""
    form, ours = form or layers.Form(), f"{ours}/blocks/block"

    def theirs(part):
        found = known(names, part, part)
        if isinstance(found, tuple):
            return tuple(names["block"] + name for name in found)
        return names["block"] + found

    rows = [
        *norm_rows(theirs("norm1"), f"{ours}/norm1", width, depth),
        *qkv_rows(theirs("qkv"), f"{ours}/attn/qkv", width, heads, depth, form),
        row(
            f"{theirs('out')}.weight",
            f"{ours}/attn/out/kernel",
            (width, width),
            depth,
            split=(width, heads, width // heads),
            order=(1, 2, 0),
        ),
        row(f"{theirs('out')}.bias", f"{ours}/attn/out/bias", (width,), depth),
        *norm_rows(theirs("norm2"), f"{ours}/norm2", width, depth),
    ]
    if form.qkv_bias == "qv" and "bias_mask" in names:
        mask = np.repeat(np.float32([1, 0, 1]), width)
        name = theirs("bias_mask")
        rows += [Fixed(name.format(i=i), mask) for i in range(depth)]
    if form.layerscale:
        rows += [
            row(theirs(ls), f"{ours}/{ls}/scale", (width,), depth)
            for ls in ("ls1", "ls2")
        ]
    if form.mlp == "swiglu":
        down = theirs("gated_down")
        rows += gated_rows(theirs("gated"), f"{ours}/mlp/gated", width, hidden, depth)
    else:
        down = theirs("down")
        rows += dense_rows(theirs("up"), f"{ours}/mlp/up", width, hidden, depth)
    return rows + dense_rows(down, f"{ours}/mlp/down", hidden, width, depth)


def qkv_rows(theirs, ours, width, heads, depth, form):
    """Queries, keys and values in one piece or three; without a bias, ours is zero."""
    head = (heads, width // heads)
    has = [part in form.qkv_bias for part in "qkv"]
    biases = tuple(f"{name}.bias" for name in theirs)
    if len(theirs) == 3:
        biases = tuple(name if here else None for name, here in zip(biases, has))
    elif not any(has):
        biases = (None,)
    return [
        row(
            tuple(f"{name}.weight" for name in theirs),
            f"{ours}/kernel",
            (3 * width, width),
            depth,
            split=(3, *head, width),
            order=(3, 0, 1, 2),
        ),
        row(biases, f"{ours}/bias", (3 * width,), depth, split=(3, *head)),
    ]


def gated_rows(theirs, ours, width, hidden, depth):
    """Gate and value of SwiGLU in one piece or two: `[2*H D]` <-> kernel `[D 2 H]`."""
    weight, bias = (tuple(f"{t}.{x}" for t in theirs) for x in ("weight", "bias"))
    split = (2, hidden, width)
    return [
        row(
            weight,
            f"{ours}/kernel",
            (2 * hidden, width),
            depth,
            split=split,
            order=(2, 0, 1),
        ),
        row(bias, f"{ours}/bias", (2 * hidden,), depth, split=split[:2]),
    ]
