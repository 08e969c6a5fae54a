"""The shape of a ViT from its arrays: what `models.variants` and a config call it."""

import math
import re

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import timm
from vit_ssl_jax.interop.table import ROUNDING

# Heads of published ViTs by width; rotary files tell theirs.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}
ROPE = 100.0  # base of DINOv3's


def measure(state, names, facts) -> dict:
    """Sizes and parts of the ViT in a state_dict by a table of `interop.names`.

    facts: "heads", "grid", "rope", where they are known from elsewhere. Gives depth,
    width, hidden, heads, patch, registers, rope, layerscale, mlp, qkv_bias; cls, posemb,
    grid, class_row. Raises UserError where the file can't tell.
    """
    patch = shape_of(state, names["patch"] + ".weight")
    if len(patch) != 4 or patch[1] != timm.CHANNELS or patch[2] != patch[3]:
        raise UserError(
            f"its patch embedding is {patch}; images have 3 channels here, and patches "
            "are square"
        )
    width = patch[0]
    first = names["block"].format(i=0)
    found = dict(patch=patch[2], width=width, depth=count_blocks(state, names["block"]))
    found |= measure_mlp(state, names, first)
    found |= measure_qkv(state, names, first)
    found["layerscale"] = 1e-5 if first + names.get("ls1", "?") in state else 0.0
    registers = state.get(names.get("registers", "?"), np.zeros((1, 0, 0)))
    found["registers"] = registers.shape[1]
    found["rope"] = measure_rope(state, names, facts)
    found["heads"] = find_heads(state, names, width, facts)
    cls = names["cls"] in state
    return (
        found | {"cls": cls} | measure_posemb(state, names, cls, found["patch"], facts)
    )


def shape_of(state, name):
    """The shape of an array; raises UserError where there is none of that name."""
    if name not in state:
        raise UserError(f"it has no {name}")
    return tuple(np.shape(state[name]))


def count_blocks(state, block) -> int:
    """Number of blocks, those 0 to the last."""
    pattern = re.compile(re.escape(block).replace(r"\{i\}", r"(\d+)"))
    numbers = {int(m[1]) for name in state if (m := pattern.match(name))}
    if numbers != set(range(len(numbers))) or not numbers:
        lost = sorted(set(range(max(numbers, default=0))) - numbers)
        raise UserError(f"its blocks {lost} are missing; is it the whole file?")
    return len(numbers)


def measure_mlp(state, names, first) -> dict:
    """Kind and width of the MLPs."""
    gated = [f"{first}{name}.weight" for name in names.get("gated", ())]
    if gated and all(name in state for name in gated):
        rows = sum(len(state[name]) for name in gated)
        hidden = shape_of(state, f"{first}{names['gated_down']}.weight")[1]
        if rows == 2 * hidden:
            return dict(mlp="swiglu", hidden=hidden)
    return dict(mlp="gelu", hidden=shape_of(state, f"{first}{names['up']}.weight")[0])


def measure_qkv(state, names, first) -> dict:
    """Which of queries, keys and values have a bias."""
    has = [f"{first}{name}.bias" in state for name in names["qkv"]]
    if len(has) == 3:
        kinds = {(1, 1, 1): "qkv", (1, 0, 1): "qv", (0, 0, 0): "none"}
        kind = kinds.get(tuple(map(int, has)))
        if kind is None:
            raise UserError("of queries, keys and values only some have a bias")
        return dict(qkv_bias=kind)
    masked = first + names.get("bias_mask", "?") in state
    return dict(qkv_bias="qv" if masked else "qkv" if has[0] else "none")


def measure_rope(state, names, facts) -> float:
    """Base of the rotary positions, 0.0 without."""
    periods = state.get(names.get("periods", "?"))
    if periods is None:
        return facts.get("rope", 0.0)
    base = float(periods[-1]) ** (len(periods) / max(len(periods) - 1, 1))
    return ROPE if abs(base - ROPE) < 2 else round(base, 1)


def find_heads(state, names, width, facts) -> int:
    """Number of heads: told, from rotary periods, or that of published ViTs."""
    periods = state.get(names.get("periods", "?"))
    if heads := facts.get("heads"):
        if width % heads:
            raise UserError(f"heads={heads} doesn't divide its width of {width}")
        return heads
    if periods is not None:
        return width // (4 * len(periods))
    if width not in HEADS:
        raise UserError(
            f"it doesn't tell how many heads its width of {width} is split into; give "
            "heads=N (--heads=N of vit_ssl_jax.convert import)"
        )
    return HEADS[width]


def measure_posemb(state, names, cls, patch, facts) -> dict:
    """Kind of positions and grid of patches; whether the class token has a row."""
    table = state.get(names.get("posemb", "?"))
    if table is None:
        size = facts.get("size", (224, 224))
        return dict(posemb="none", grid=tuple(s // patch for s in size), class_row=True)
    rows, width = table.shape[1:]
    told = [tuple(side // patch for side in facts["size"])] if "size" in facts else []
    for class_row in (cls, False):
        count = rows - class_row
        side = math.isqrt(count)
        grid = next((g for g in told if math.prod(g) == count), (side, side))
        if math.prod(grid) == count:
            fixed = timm.sincos(grid, width, class_row) if width % 4 == 0 else None
            same = fixed is not None and np.abs(table - fixed).max() <= ROUNDING
            kind = "sincos" if same and class_row == cls else "learned"
            return dict(posemb=kind, grid=grid, class_row=bool(class_row))
    raise UserError(
        f"its position table has {rows} rows, of no square image; give size=(H, W) "
        "(--size=H,W of vit_ssl_jax.convert import)"
    )
