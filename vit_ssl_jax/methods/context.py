"""Context prediction: tell which neighbor of an image's central tile another tile is.

Unsupervised Visual Representation Learning by Context Prediction (Doersch, Gupta and
Efros, 2015).
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import SHARE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import outputs, vit
from vit_ssl_jax.ops import images, jitter, tiles

SIDE = 3  # cells a side; the centre is cell 4 of 9
CENTRE = 4
GRAY = 0.66  # share of grey images under colour="gray", as in mmselfsup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    tile: int  # px of a square tile, a multiple of the patch
    gap: int  # px that lie between two tiles at least; what is left is jitter
    colour: str  # guard against aberration: "drop", "project" or "gray" (make_views)
    pairs: str  # "all": the center with all 8 neighbors; "one": with a random one
    pool: str  # "cls": the class token; "mean": patches, normed after pooling
    coarsen: float = 0.0  # share of tiles that are shrunk and enlarged again


RANGES = {
    "coarsen": SHARE,
    "colour": one_of("drop", "project", "gray"),
    "pairs": one_of("all", "one"),
    "pool": one_of("cls", "mean"),
}


class ContextPrediction(nn.Module):
    """One encoder for every tile by itself, and a classifier of ordered pairs."""

    encoder: vit.ViT
    pool: str

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B K 8]` float32 of the pairs (tile 0, tile 1 + k)."""
        x, encoder, style = views["tiles"], self.encoder, self.encoder.style
        b, t, side = x.shape[:3]
        # The centre is encoded once, whatever the number of its pairs.
        x = encoder.embed(x.reshape(b * t, *x.shape[2:]))
        grid = (side // encoder.patch, side // encoder.patch)
        x = encoder.encode(encoder.place(x, grid), train, grid=grid)
        x = outputs.pooled(x, self.pool, encoder)
        x = x.reshape(b, t, encoder.width)
        neighbour = x[:, 1:]
        centre = jnp.broadcast_to(x[:, :1], neighbour.shape)
        # Never symmetric: the centre is always the first half.
        x = jnp.concatenate([centre, neighbour], axis=-1)
        x = outputs.hidden(x, encoder.width, style, "pair_embed")
        return outputs.logits(SIDE**2 - 1, style, "head")(x)


def make_views(key, batch, *, normalize, tile, gap, colour, pairs, coarsen=0.0):
    """`tiles [B 1+K h w C]`, the centre first; `label [B K]`, where the others lie.

    K is 8 or 1. Labels are in raster order without the centre: 0 up-left, 1 up, 2
    up-right, 3 left, 4 right, 5 down-left, 6 down, 7 down-right. Tiles are cut at random
    from the cells of a 3x3 grid and centred: their mean colour is subtracted. A share
    `coarsen` of them is shrunk before, to as few as 100 pixels, and enlarged again.

    colour: "drop" keeps one random channel of a tile and makes the others faint noise;
        "project" removes green against magenta; "gray" makes two images in three grey.
    """
    colour_key, label_key, offset_key = jax.random.split(key, 3)
    image = batch["image"]
    if colour == "gray":
        image = jitter.sometimes(colour_key, GRAY, jitter.greyscale(image), image)
    if colour == "project":
        image = tiles.project_colours(image)
    cells = tiles.cut_cells(normalize(image), SIDE)
    b, _, height, width, _ = cells.shape
    label = draw_neighbours(label_key, b, pairs)
    ids = jnp.pad(label + (label >= CENTRE), ((0, 0), (1, 0)), constant_values=CENTRE)
    # Half the gap on either side of a cell; uniform jitter in what is left.
    low, high = gap // 2, jnp.array([height, width]) - tile - (gap - gap // 2)
    offset = jax.random.randint(offset_key, (*ids.shape, 2), low, high[None, None] + 1)
    x = tiles.cut_tiles(tiles.take_tiles(cells, ids), offset, tile)
    if coarsen:
        x = tiles.coarsen(jax.random.fold_in(offset_key, 1), x, coarsen)
    x = tiles.centre(x)
    if colour == "drop":
        x = tiles.drop_colours(colour_key, x)
    return {"tiles": x, "label": label}


def draw_neighbours(key, batch, pairs):
    """Which neighbours the centre is paired with: `-> [B 8]` or `[B 1]` int32."""
    if pairs == "all":
        return jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32), (batch, 8))
    return jax.random.randint(key, (batch, 1), 0, 8, jnp.int32)


def make_targets(ema, views, step):
    """Places of the neighbours `[B K]`, 0 to 7."""
    del ema, step
    return views["label"]


def loss_fn(outputs, targets):
    """Softmax cross-entropy, mean over pairs: `[B K 8], [B K] -> scalar, top1`.

    Chance is log 8 = 2.079 and a top-1 of 0.125.
    """
    chex.assert_shape(outputs, (*targets.shape, 8))
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    right = outputs.argmax(-1) == targets
    return loss, {
        "top1": right.mean(),  # share of pairs whose place is right; chance: 0.125
    }


def draw(outputs, targets, views, *, size, mean_std):
    """Tiles where they are predicted and truly lie: `{name: [B H W 3]}` in [0, 1].

    Of tiles predicted at one place the surest is drawn; the rest is black.
    """
    shown = images.denormalize(views["tiles"], *mean_std)
    true = jax.nn.one_hot(targets, SIDE**2 - 1)
    scores = {
        "tiles at their predicted places": outputs,
        "tiles at their true places": true,
    }
    height, width = (side // SIDE for side in size)
    spare = height - shown.shape[2], width - shown.shape[3], 0  # of a cell
    pad = [(n // 2, n - n // 2) for n in spare]
    edge = [(0, 0), *((0, n % SIDE) for n in size), (0, 0)]  # no cell reaches there
    pictures = {}
    for name, score in scores.items():
        placed = tiles.place_tiles(shown[:, 1:], score)
        cells = (placed[:, :CENTRE], shown[:, :1], placed[:, CENTRE:])
        cells = jnp.pad(jnp.concatenate(cells, axis=1), [(0, 0), (0, 0), *pad])
        pictures[name] = jnp.pad(tiles.join_cells(cells, SIDE), edge)
    return pictures


def check(c, encoder):
    """Raises UserError where a tile has no place in its cell."""
    vit.check_pool(c.pool, encoder.cls)
    cell = min(encoder.size) // SIDE
    if c.tile < 1 or c.tile % encoder.patch or c.tile > cell:
        raise UserError(
            f"config.method.tile: {c.tile} px is not a multiple of the patch of "
            f"{encoder.patch} px that fits a cell of {cell} px, a third of the image "
            "(config.data.size)"
        )
    if not 0 <= c.gap <= cell - c.tile:
        raise UserError(
            f"config.method.gap: {c.gap} px; a tile of {c.tile} px (config.method.tile) "
            f"in a cell of {cell} px leaves 0 to {cell - c.tile}"
        )


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit(final_norm=c.pool == "cls")
    check(c, encoder)
    numbers = dict(tile=c.tile, gap=c.gap, colour=c.colour, pairs=c.pairs)
    numbers["coarsen"] = c.coarsen
    return Method(
        model=ContextPrediction(encoder=encoder, pool=c.pool),
        make_views=functools.partial(
            make_views, normalize=context.normalize, **numbers
        ),
        make_targets=make_targets,
        loss_fn=loss_fn,
        draw=functools.partial(draw, size=encoder.size, mean_std=context.mean_std),
    )
