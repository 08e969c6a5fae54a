"""Block-wise masks on the device, with static shapes (BEiT, Bao et al., 2022, section 2.3).

MaskFeat's two implementations differ in how they draw them, and ours from both
(SlowFast `datasets/transform.py`, mmpretrain `transforms/processing.py`).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import masks

MIN_SHARE = 5  # a block is aimed at no fewer than a fifth of all hidden patches
ASPECT = 0.3  # of blocks: log-uniform between this and its inverse
PATIENCE = 10  # tries in a row that fail before a mask is left as it is
ENDLESS = 10_000  # the same where the published loop has no end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """The law by which masks are drawn.

    A try aims at an area and an aspect ratio (height / width).
    area ~ U(minimum, what is missing), the bounds exchanged where less is missing; the
    block is `round(sqrt(area ratio))` by `round(sqrt(area / ratio))`, and is taken if it
    is smaller than the grid in both directions, hides something new, and not too much.
    """

    grid: tuple  # (rows, columns)
    count: int  # hidden patches of a mask
    minimum: int  # smallest area aimed at
    aspect: float  # smallest aspect ratio; the largest is its inverse
    inclusive: bool  # False: blocks never reach the last row and column
    patience: int  # tries in a row that fail before a mask is left as it is
    fill: bool  # hide what is missing then at random, so that `count` are hidden


class Masks(NamedTuple):
    """Masks half drawn."""

    hide: jax.Array  # [B H W] bool
    count: jax.Array  # [B] int32, hidden patches
    fails: jax.Array  # [B] int32, tries in a row that failed
    placed: jax.Array  # [B] int32, blocks
    blocks: jax.Array  # [B record 4] int32, (height, width, top, left) of the first


def make_law(grid, ratio, compat):
    """The law of a grid and a share of hidden patches.

    `compat` "none": uniform placement, `round(N ratio)` hidden in every mask;
    "slowfast": the same, but a mask may end with fewer; "mmpretrain": never the last
    row and column, tried on and on until `round(N ratio)` are hidden.
    """
    count = round(grid[0] * grid[1] * ratio)
    return Law(
        grid=grid,
        count=count,
        minimum=count // MIN_SHARE,
        aspect=ASPECT,
        inclusive=compat != "mmpretrain",
        patience=ENDLESS if compat == "mmpretrain" else PATIENCE,
        fill=compat != "slowfast",
    )


def blockwise(key, batch, *, law, record=0):
    """Draws masks: `-> hide [B N] bool, blocks [B record 4] int32`.

    `blocks` are (height, width, top, left) of the first `record` blocks of each mask,
    zeros where there are fewer. All masks try at once, until the last is done.
    """
    zeros = jnp.zeros(batch, jnp.int32)
    start = Masks(
        hide=jnp.zeros((batch, *law.grid), bool),
        count=zeros,
        fails=zeros,
        placed=zeros,
        blocks=jnp.zeros((batch, record, 4), jnp.int32),
    )
    try_key, fill_key = jax.random.split(key)

    def body(carry):
        i, now = carry
        return i + 1, attempt(jax.random.fold_in(try_key, i), now, law)

    _, end = jax.lax.while_loop(lambda x: jnp.any(is_open(x[1], law)), body, (0, start))
    hide = end.hide.reshape(batch, -1)
    if law.fill:
        hide = fill_up(fill_key, hide, law)
    return hide, end.blocks


def is_open(now, law):
    """Masks that go on: `[B]` bool."""
    return (now.count < law.count) & (now.fails < law.patience)


def attempt(key, now, law):
    """One try of every mask that isn't done."""
    height, width, top, left = propose(key, law.count - now.count, law)
    fits = (height < law.grid[0]) & (width < law.grid[1])
    block = masks.block_map(top, left, (height[:, None], width[:, None]), law.grid)
    new = (block & ~now.hide).sum((1, 2))
    fits &= (new > 0) & (now.count + new <= law.count)
    taken = fits & is_open(now, law)
    numbers = jnp.stack([height, width, top, left], -1)[:, None]
    slot = jnp.arange(now.blocks.shape[1])[None] == now.placed[:, None]
    return Masks(
        hide=now.hide | (block & taken[:, None, None]),
        count=now.count + jnp.where(taken, new, 0),
        fails=jnp.where(taken, 0, now.fails + 1),
        placed=now.placed + taken,
        blocks=jnp.where((slot & taken[:, None])[..., None], numbers, now.blocks),
    )


def propose(key, missing, law):
    """Blocks for masks that lack `missing [B]` patches: int32 `[B]` each of (height,
    width, top, left); those too large for the grid lie anywhere."""
    u = jax.random.uniform(key, (4, len(missing)))
    area = law.minimum + u[0] * (missing - law.minimum)
    ratio = jnp.exp(math.log(law.aspect) * (1.0 - 2.0 * u[1]))
    sizes = jnp.sqrt(area * ratio), jnp.sqrt(area / ratio)
    height, width = (jnp.round(x).astype(jnp.int32) for x in sizes)
    places = [
        jnp.maximum(side - length + law.inclusive, 1)
        for side, length in zip(law.grid, (height, width))
    ]
    top, left = (jnp.int32(x * n) for x, n in zip(u[2:], places))
    return height, width, top, left


def fill_up(key, hide, law):
    """Hides missing patches at random where blocks can be: `[B N] -> [B N]` bool."""
    rows, cols = (side - (not law.inclusive) for side in law.grid)
    inside = masks.block_map(jnp.int32(0), jnp.int32(0), (rows, cols), law.grid)
    # Hidden ones rank first, those that no block reaches last.
    noise = jax.random.uniform(key, hide.shape)
    noise = jnp.where(hide, -1.0, jnp.where(inside.reshape(1, -1), noise, 2.0))
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    return rank < law.count


def can_fill(law):
    """Whether blocks alone reach `count` hidden patches: one fits whatever is missing."""
    rows, cols = (side - (not law.inclusive) for side in law.grid)
    missing = range(1, law.count + 1)
    return law.count <= rows * cols and all(can_place(law, n) for n in missing)


def can_place(law, missing):
    """Whether a try can propose a block for a mask that lacks `missing` patches.

    With x = log(area ratio) and y = log(area / ratio), a size is a rectangle (what
    rounds to it) and the law another, turned by 45 degrees. They meet unless they are
    apart along x, y, x + y or x - y.
    """
    height, width = (np.arange(1.0, side) for side in law.grid)
    x, y = height[:, None], width[None]
    small = x * y <= missing
    (x0, x1), (y0, y1) = (2 * np.log([n - 0.5, n + 0.5]) for n in (x, y))
    with np.errstate(divide="ignore"):
        low, high = 2 * np.log(sorted((law.minimum, missing)))
    turn = -2 * math.log(law.aspect)  # |x - y| is below it
    meet = (x0 + y0 < high) & (x1 + y1 > low)
    meet &= (x0 - y1 < turn) & (x1 - y0 > -turn)
    meet &= (2 * x0 < high + turn) & (2 * x1 > low - turn)
    meet &= (2 * y0 < high + turn) & (2 * y1 > low - turn)
    return bool(np.any(meet & small))
