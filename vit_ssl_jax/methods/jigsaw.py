"""Jigsaw: shuffle the tiles of an image and tell which permutation it was.

Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (Noroozi and
Favaro, 2016). There every tile goes through a network of its own; here the shuffled
image is one sequence, whose positions show the places of the puzzle.
"""

import dataclasses
import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import SHARE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import outputs, vit
from vit_ssl_jax.ops import images, jitter, permutations, tiles

FURTHEST = 2  # px that a colour channel of a tile is moved by at most
PORT_SHIFT = (-2, 1)  # of 255, added to a channel by the port


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    grid: int  # cells a side: 2 or 3
    tile: int  # px of the square cut at random from every cell, resized to the cell
    permutations: int  # size of the set that the answer is chosen from
    gray: float  # share of images made gray
    pool: str  # "cls": the class token; "mean": patches, normed after pooling
    compat: str  # "none", or "official": details of the public port (see `make`)


RANGES = {
    "grid": ("2 or 3 cells a side", lambda x: x in (2, 3)),
    "gray": SHARE,
    "pool": one_of("cls", "mean"),
    "compat": one_of("none", "official"),
}


class Jigsaw(nn.Module):
    """Encoder of the whole puzzle and linear classifier of its permutation."""

    encoder: vit.ViT
    pool: str
    permutations: int

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B permutations]` float32."""
        style = self.encoder.style
        tokens = self.encoder(views["image"], train)
        x = outputs.pooled(tokens, self.pool, self.encoder)
        return outputs.logits(self.permutations, style, "head")(x)


def make_views(key, batch, *, normalize, c, table):
    """`image [B H W C]`, the puzzle; `label [B]`, the row of `table` it follows.

    Place s of the puzzle holds tile `table[label, s]`. Every tile was cut at random from
    its cell and resized to it, so borders don't continue; its colour channels were moved
    against each other, so fringes of the lens don't tell its place; it was standardised,
    so its statistics don't tell its neighbours. Standardised tiles have mean 0 and
    deviation 1, as normalised images do.
    """
    gray_key, offset_key, shift_key, label_key = jax.random.split(key, 4)
    official = c.compat == "official"
    x = tiles.cut_cells(batch["image"], c.grid)
    largest = x.shape[2] - c.tile
    offset = jax.random.randint(offset_key, (*x.shape[:2], 2), 0, largest + 1)
    if official:
        offset = jnp.repeat(offset[:, :, None], 3, axis=2)
    else:
        offset = tiles.spread_channels(shift_key, offset, largest, FURTHEST)
    x = tiles.enlarge_tiles(x, offset, c.tile)
    # Grey after that: a grey image has no fringes to hide.
    image = tiles.join_cells(x, c.grid)
    image = jitter.sometimes(gray_key, c.gray, jitter.greyscale(image), image)
    x = tiles.cut_cells(image, c.grid)
    if official:
        x = tiles.shift_colours(shift_key, x, *PORT_SHIFT)
    x = tiles.standardise(normalize(x), channels=official)
    label = jax.random.randint(label_key, x.shape[:1], 0, len(table), jnp.int32)
    x = tiles.take_tiles(x, jnp.asarray(table)[label])
    return {"image": tiles.join_cells(x, c.grid), "label": label}


def make_targets(ema, views, step):
    """Rows of the set of permutations `[B]`."""
    del ema, step
    return views["label"]


def loss_fn(outputs, targets):
    """Softmax cross-entropy, mean over images: `[B P], [B] -> scalar, top1`.

    Chance is log P and a top-1 of 1 / P.
    """
    chex.assert_shape(outputs, (len(targets), None))
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    right = outputs.argmax(-1) == targets
    return loss, {
        "top1": right.mean(),  # share of right permutations; chance: 1 / `permutations`
    }


def draw(outputs, targets, views, *, grid, table, mean_std):
    """Shuffled tiles, and put back as predicted and truly: `[B H W 3]` in [0, 1]."""
    shuffled = images.denormalize(views["image"], *mean_std)
    cells = tiles.cut_cells(shuffled, grid)
    back = jnp.argsort(jnp.asarray(table), axis=1)  # tile j is at place back[j]
    rows = {"predicted": outputs.argmax(-1), "true": targets}
    return {"shuffled tiles": shuffled} | {
        f"put back by the {name} permutation": tiles.join_cells(
            tiles.take_tiles(cells, back[row]), grid
        )
        for name, row in rows.items()
    }


def check(c, encoder):
    """Raises UserError where the puzzle can't be cut or the answers can't be chosen."""
    height, width = encoder.size
    unit = c.grid * encoder.patch
    if height != width or height % unit:
        low = max(height // unit, 1) * unit
        raise UserError(
            f"config.data.size: {height}x{width} px can't be cut into {c.grid}x"
            f"{c.grid} square cells of whole patches of {encoder.patch} px; set it to "
            f"({low}, {low}) or ({low + unit}, {low + unit})"
        )
    if encoder.posemb == "none" and not encoder.rope:
        raise UserError(
            "config.vit.posemb: 'none' hides where a tile lies, which is the answer; "
            "set it to 'sincos' or 'learned'"
        )
    cell, gap = height // c.grid, math.ceil(encoder.patch / 2)
    if not 1 <= c.tile <= cell - gap:
        raise UserError(
            f"config.method.tile: {c.tile} px of a cell of {cell} px; it must leave at "
            f"least half a patch, {gap} px, so that borders don't tell neighbours: at "
            f"most {cell - gap}"
        )
    most = math.factorial(c.grid**2)
    if not 2 <= c.permutations <= most:
        raise UserError(
            f"config.method.permutations: {c.permutations} is not from 2 to {most}, all "
            f"there are of {c.grid**2} tiles"
        )
    vit.check_pool(c.pool, encoder.cls)


def make(c, context):
    """Closes the functions over a run's numbers.

    The set of permutations follows from the config alone, so no checkpoint holds it.
    "none" spreads it by the smallest distance, moves the colour channels of a tile by up
    to 2 px against each other (as the paper does) and standardises them together.
    "official" does as the public port: spread by the mean distance, intensities of a
    channel shifted by -2..1 of 255, channels standardised one by one, which undoes the
    shifts but for what they clip. (The port's set starts at a random permutation, ours
    at the identity.)
    """
    encoder = context.vit(final_norm=c.pool == "cls")
    check(c, encoder)
    table = permutations.spread_permutations(
        c.grid**2,
        c.permutations,
        by="mean" if c.compat == "official" else "minimum",
    )
    return Method(
        model=Jigsaw(encoder=encoder, pool=c.pool, permutations=c.permutations),
        make_views=functools.partial(
            make_views,
            normalize=context.normalize,
            c=c,
            table=table,
        ),
        make_targets=make_targets,
        loss_fn=loss_fn,
        draw=functools.partial(
            draw, grid=c.grid, table=table, mean_std=context.mean_std
        ),
    )
