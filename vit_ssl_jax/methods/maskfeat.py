"""MaskFeat: hide blocks of patches and regress the hidden ones' oriented gradients.

Masked Feature Prediction for Self-Supervised Visual Pre-Training (Wei et al., 2022).
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax.checks import SHARE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import layers, vit
from vit_ssl_jax.ops import blockwise, hog, images, patches

GLYPH = 8  # pixels that a cell's lines are drawn in, at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    mask_ratio: float  # share of hidden patches
    bins: int  # orientations of a histogram
    cell: int  # side of a histogram's cell, pixels
    window: int  # side of the tiled Gaussian that weights votes, pixels; 0: none
    compat: str  # "none": exact, uniform masks; "slowfast", "mmpretrain": theirs


RANGES = {
    "mask_ratio": SHARE,
    "bins": ("at least 2; published: 9", lambda x: x >= 2),
    "compat": one_of("none", "slowfast", "mmpretrain"),
}


class MaskFeat(nn.Module):
    """Encoder over all tokens, the hidden ones replaced, and one linear layer."""

    encoder: vit.ViT
    features: int  # of a target

    def setup(self):
        init = self.encoder.style.initial
        shape = (1, 1, self.encoder.width)
        self.mask_token = self.param("mask_token", init.token, shape)
        self.head = layers.dense(
            self.features, self.encoder.style, "head", kernel_init=init.head
        )

    def __call__(self, views, train):
        """Histograms of all patches: `[B N F]` float32."""
        tokens = self.encode(views, train)[:, int(self.encoder.cls) :]
        return self.head(tokens).astype(jnp.float32)

    def encode(self, views, train):
        """Normed tokens: `[B N(+1) D]`. The final norm is SlowFast's head's."""
        tokens = self.encoder.embed(views["image"])
        tokens = jnp.where(views["hide"][..., None], self.mask_token, tokens)
        return self.encoder.encode(self.encoder.place(tokens), train)


def make_views(key, batch, *, normalize, law):
    """`image [B H W C]` standardised; `hide [B N]` bool."""
    hide, _ = blockwise.blockwise(key, len(batch["image"]), law=law)
    return {"image": normalize(batch["image"]), "hide": hide}


def make_targets(ema, views, step, *, bins, cell, window, per_side):
    """Histograms of all patches, `per_side`^2 cells each, `hog [B N F]` and `hide`.

    F is (channel, bin, cell's row, cell's column). Standardising the image before
    changes nothing: a channel's scale goes with the norm, its offset with the gradient.
    """
    del ema, step
    cells = hog.hog(views["image"], bins=bins, cell=cell, window=window)
    return {"hog": hog.to_patches(cells, per_side), "hide": views["hide"]}


def loss_fn(outputs, targets):
    """Mean squared error over the batch's hidden patches: `[B N F] -> scalar, {}`.

    SlowFast means over hidden tokens and features, mmpretrain over features and then
    over hidden tokens: the same number.
    """
    chex.assert_equal_shape([outputs, targets["hog"]])
    errors = jnp.square(outputs - targets["hog"]).mean(-1)
    hide = targets["hide"]
    # "slowfast" can leave a mask empty, and thereby a small micro-batch.
    count = jnp.maximum(hide.sum(), 1)
    return jnp.where(hide, errors, 0.0).sum() / count, {}


def draw(outputs, targets, views, *, grid, patch, mean_std, bins, cell, per_side):
    """The masked image, and histograms as lines, true and predicted: `[B h w 3]` in [0, 1].

    A line lies along an edge and is as bright as its bin, a colour a channel. Of visible
    patches, which aren't trained on, nothing is predicted. Small cells are enlarged.
    """
    pixels, hide = patches.patchify(views["image"], patch), views["hide"][..., None]
    masked = patches.unpatchify(jnp.where(hide, 0.0, pixels), patch, grid)
    side, true = cell * -(-GLYPH // cell), targets["hog"]

    def render(vectors):
        return hog.render(hog.from_patches(vectors, grid, bins, per_side), side)

    return {
        "masked": images.denormalize(masked, *mean_std),
        "HOG of all patches, true": render(true),
        "HOG of the hidden patches, true": render(jnp.where(hide, true, 0.0)),
        "HOG of the hidden patches, predicted": render(jnp.where(hide, outputs, 0.0)),
    }


def check_targets(c, encoder):
    """Raises UserError where the histograms don't fit the patches or the image."""
    size = encoder.size
    if c.cell < 1 or encoder.patch % c.cell:
        raise UserError(
            f"config.method.cell: cells of {c.cell} px don't divide the patch of "
            f"{encoder.patch} px of config.vit.variant; published: half a patch"
        )
    if c.window and (c.window < 2 or any(side % c.window for side in size)):
        raise UserError(
            f"config.method.window: windows of {c.window} px don't tile an image of "
            f"{size[0]}x{size[1]} px (config.data.size); 0 is no window"
        )


def make_law(c, grid):
    """The law of the masks; raises UserError where the grid can't have such masks."""
    tokens = grid[0] * grid[1]
    law = blockwise.make_law(grid, c.mask_ratio, c.compat)
    where = f"on a grid of {grid[0]}x{grid[1]} patches"
    if not 0 < law.count < tokens:
        raise UserError(
            f"config.method.mask_ratio: {c.mask_ratio} hides {law.count} of {tokens} "
            "patches; at least one must be hidden and one visible"
        )
    if c.compat == "slowfast" and not blockwise.can_place(law, law.count):
        raise UserError(
            f"config.method.compat: SlowFast's blocks never fit {where}, so its masks "
            'are empty; use compat="none"'
        )
    if c.compat == "mmpretrain" and not blockwise.can_fill(law):
        raise UserError(
            f"config.method.compat: mmpretrain's blocks, which leave out the last row "
            f"and column, never hide {law.count} patches {where} and its loop has no "
            'end; use compat="none" or a lower mask_ratio'
        )
    return law


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    check_targets(c, encoder)
    per_side = encoder.patch // c.cell
    numbers = dict(bins=c.bins, cell=c.cell, per_side=per_side)
    return Method(
        model=MaskFeat(encoder=encoder, features=3 * c.bins * per_side**2),
        make_views=functools.partial(
            make_views, normalize=context.normalize, law=make_law(c, encoder.grid)
        ),
        make_targets=functools.partial(make_targets, window=c.window, **numbers),
        loss_fn=loss_fn,
        draw=functools.partial(
            draw,
            grid=encoder.grid,
            patch=encoder.patch,
            mean_std=context.mean_std,
            **numbers,
        ),
    )
