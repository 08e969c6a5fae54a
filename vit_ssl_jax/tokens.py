"""Positions, class token and registers of a trained encoder, fitted to another ViT."""

import jax
import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import variants, vit
from vit_ssl_jax.ops import posemb


def say_beside(theirs, encoder):
    """What becomes of an encoder's class token, registers and turns: lines to say.

    `encoder` is the ViT of this run, `theirs` the other run's config.
    """
    shape = variants.decode(theirs["vit.variant"])
    had, has = theirs.get("vit.cls", encoder.cls), encoder.cls
    old, new, lines = shape["registers"], encoder.registers, []
    if had and not has:
        lines.append("encoder: its class token is left out, here is none")
    elif has and not had:
        lines.append("encoder: it has no class token, a fresh one is learned")
    if old != new:
        rest = "the first of its" if new < old else "those beyond its are fresh"
        rest = rest if min(old, new) else ("left out" if old else "fresh ones")
        lines.append(f"encoder: it has {old} registers, here are {new}: {rest}")
    turned = vit.rope_base(theirs["vit.posemb"], shape["rope"])
    if turned != encoder.form.rope:
        lines.append(
            f"encoder: it was trained with rotary positions of base {turned:g}, "
            f"here it is {encoder.form.rope:g} (0: none)"
        )
    return lines


def overlay(fresh, given):
    """Parameters of an encoder with all that was `given`, in place of fresh ones.

    Of registers the first are given, as many as both have.
    """
    merged = fresh | given
    new, old = fresh.get("registers"), given.get("registers")
    if old is not None and old.shape != new.shape:
        count = min(old.shape[1], new.shape[1])
        put = jax.jit(
            lambda new, old: new.at[:, :count].set(old[:, :count]),
            out_shardings=new.sharding,
        )
        merged["registers"] = put(new, old)
    return merged


def place_encoder(table, encoder, theirs):
    """Positions of patches from here on: `(table [1 N(+1) D] or None, lines to say)`.

    `table` is the learned one that came with the encoder, None where it has none;
    `encoder` is the ViT of this run, `theirs` the other run's config.
    """
    patch = variants.decode(theirs["vit.variant"])["patch"]
    old, new = tuple(side // patch for side in theirs["data.size"]), encoder.grid
    change = f"grid of {new[0]}x{new[1]} patches, not {old[0]}x{old[1]}"
    kind, had, lines = theirs["vit.posemb"], theirs.get("vit.cls", encoder.cls), []
    if kind in ("none", "rope") or encoder.posemb == "none":
        if encoder.posemb == "learned":
            lines.append("encoder: it has no position table, a fresh one is learned")
        return None, lines
    if encoder.posemb != "learned":
        if kind == "learned":
            lines.append(
                "encoder: its learned position table is left out, for here it is fixed "
                f"(config.vit.posemb={encoder.posemb!r})"
            )
        elif old != new:
            lines.append(
                f"encoder: its fixed position table is made anew for a {change}"
            )
        return None, lines
    if table is None:
        lines.append("encoder: its fixed position table is learned from here on")
        table = fixed_table(old, encoder.width, kind, had)
    table = np.asarray(table)
    if table.shape[1] != old[0] * old[1] + had:
        raise UserError(
            f"its position table has {table.shape[1]} rows, but its config.json says "
            f"vit.variant={theirs['vit.variant']!r}, data.size={theirs['data.size']}"
        )
    if old != new:
        smooth = is_smoothed(theirs)
        how = ", antialiased as its own code does" if smooth else ""
        lines.append(f"encoder: its position table is resampled for a {change}{how}")
        table = posemb.resample(table[0], old, new, antialias=smooth)[None]
    if had != encoder.cls:  # a new class token's row is zero
        table = posemb.with_cls(table[0, int(had) :], encoder.cls)
    return table, lines


def is_smoothed(theirs):
    """Whether the code that saved an encoder resamples its positions antialiased.

    timm does, and DINOv2 for its ViTs with registers.
    """
    source = theirs.get("recipe", "").partition("weights:")[2]
    registers = "registers=" in theirs["vit.variant"]
    return source == "timm" or (source in ("dinov2", "hf-dinov2") and registers)


def fixed_table(grid, width, kind, cls):
    """The sine-cosine table of a grid, class token's row zero: `[1 N(+1) D]`."""
    return posemb.with_cls(posemb.sincos(grid, width, kind == "sincos_big_vision"), cls)
