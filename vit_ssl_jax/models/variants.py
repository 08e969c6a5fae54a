"""Sizes of ViTs by name: "B/16", "4x128x4/4", "S/14,registers=4,layerscale=1e-5"."""

import re

from vit_ssl_jax.errors import UserError

# name: depth, width, MLP width, heads. Ti, S: DeiT (2021), table 1; B, L, H: ViT,
# table 1; g, G: Zhai et al. (2022), table 2.
VARIANTS = {
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),
    "G": (48, 1664, 8192, 16),
}
# What may follow a name, behind commas: the value that it has otherwise, and what it is.
EXTRAS = {
    "hidden": (0, "width of the MLP"),
    "registers": (0, "tokens beside the class token that no output has"),
    "rope": (0.0, "base of rotary positions, DINOv3's is 100"),
    "layerscale": (0.0, "what every branch is multiplied with at first, 0: no factor"),
    "mlp": ("gelu", "gelu or swiglu"),
    "qkv_bias": ("qkv", "which of queries, keys, values have a bias: qkv, qv or none"),
}
CHOICES = {"mlp": ("gelu", "swiglu"), "qkv_bias": ("qkv", "qv", "none")}
OF_BLOCKS = ("rope", "layerscale", "mlp", "qkv_bias")  # fields of `layers.Form`


def decode(variant: str) -> dict:
    """Splits "B/16" into depth, width, hidden, heads, patch and EXTRAS by name.

    Any other shape is spelt "depth x width x heads / patch", e.g. "4x128x4/4" (the MLP
    is four widths wide). EXTRAS follow: "S/14,registers=4,layerscale=1e-5". Raises
    UserError where the name isn't understood.
    """
    size, *extras = variant.split(",")
    name, _, patch = size.partition("/")
    free = re.fullmatch(r"(\d+)x(\d+)x(\d+)", name)
    if not patch.isdecimal() or int(patch) < 1 or not (name in VARIANTS or free):
        raise UserError(
            f"config.vit.variant: {variant!r} is not a ViT; say NAME/PATCH with NAME "
            f"one of {', '.join(VARIANTS)} or DEPTHxWIDTHxHEADS: 'B/16', '4x128x4/4'"
        )
    if free:
        depth, width, heads = map(int, free.groups())
        hidden = 4 * width
    else:
        depth, width, hidden, heads = VARIANTS[name]
    if min(depth, width, heads) < 1 or width % heads:
        raise UserError(
            f"config.vit.variant: {variant!r}: {heads} heads must divide width {width}"
        )
    shape = dict(depth=depth, width=width, heads=heads, patch=int(patch))
    shape |= decode_extras(variant, extras)
    if shape["rope"] and width // heads % 4:
        raise UserError(
            f"config.vit.variant: {variant!r}: rotary positions need heads whose width is "
            "divisible by 4"
        )
    return shape | {"hidden": shape["hidden"] or hidden}


def decode_extras(variant: str, extras: list) -> dict:
    """The values of EXTRAS that follow a variant's name, all of them."""
    values = {name: value for name, (value, _) in EXTRAS.items()}
    for extra in extras:
        name, _, text = extra.strip().partition("=")
        try:
            value = type(values[name])(text)
            valid = value in CHOICES[name] if name in CHOICES else value > 0
        except (KeyError, ValueError):
            valid = False
        if not valid:
            known = "; ".join(
                f"{name}=...: {text}" for name, (_, text) in EXTRAS.items()
            )
            raise UserError(
                f"config.vit.variant: {variant!r}: {extra!r} isn't understood; behind "
                f"the name may stand {known}"
            )
        values[name] = value
    return values


def encode(shape: dict) -> str:
    """The name that `decode` splits into `shape`."""
    size = tuple(shape[name] for name in ("depth", "width", "hidden", "heads"))
    depth, width, hidden, heads = size
    name = next((name for name, known in VARIANTS.items() if known == size), None)
    usual = hidden if name else 4 * width
    given = {k: shape.get(k, default) for k, (default, _) in EXTRAS.items()}
    given["hidden"] = 0 if hidden == usual else hidden
    extras = [f"{k}={v}" for k, v in given.items() if v != EXTRAS[k][0]]
    name = name or f"{depth}x{width}x{heads}"
    return ",".join([f"{name}/{shape['patch']}", *extras])
