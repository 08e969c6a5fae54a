"""Colorization: show lightness, predict the color of every cell of every patch.

Colorful Image Colorization (Zhang, Isola, Efros, 2016) with a ViT in the place of its
convolutional network. C colour cells a patch, Q bins, K neighbours.
"""

import dataclasses
import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax.checks import POSITIVE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import layers, vit
from vit_ssl_jax.ops import images, lab, patches

AB_SCALE = 110.0  # Lab units; regressed are ab / AB_SCALE
COLOURED = 5.0  # an image whose |a| and |b| stay below is grey (the code's filter)
BINS = len(lab.bins())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    form: str  # "classification": shares of the bins; "regression": ab itself
    patch_cells: int  # color cells along a patch's side, the patch for every pixel
    neighbours: int  # bins that share a color
    sigma: float  # of the shares and of the prior's smoothing, Lab units
    rebalance: float  # uniform share of the prior (lambda), 1.0: all colors alike
    prior_horizon: int  # steps that the running prior of the colors looks back
    temperature: float  # of the annealed mean, which makes a color of the shares


RANGES = {
    "form": one_of("classification", "regression"),
    "neighbours": (f"from 1 to the {BINS} bins", lambda x: 1 <= x <= BINS),
    "sigma": ("above 0 Lab units", lambda x: 0 < x < math.inf),
    "rebalance": ("above 0 and at most 1 (1: no rebalancing)", lambda x: 0 < x <= 1),
    "prior_horizon": ("at least 1 step", lambda x: x >= 1),
    "temperature": POSITIVE,
}


class Colorization(nn.Module):
    """Encoder and one linear layer over its patches."""

    encoder: vit.ViT
    cells: int
    features: int  # of a cell: Q logits, or a and b

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B N C Q]`, or ab over `AB_SCALE` `[B N C 2]`: float32."""
        style = self.encoder.style
        tokens = self.encoder(views["image"], train)[:, int(self.encoder.cls) :]
        features = self.cells**2 * self.features
        kernel = style.initial.head
        x = layers.dense(features, style, "head", kernel_init=kernel)(tokens)
        return x.reshape(*x.shape[:2], -1, self.features).astype(jnp.float32)


def make_views(key, batch, *, normalize, patch, cells):
    """What is seen and what it hides.

    `image [B H W 3]`: lightness / 100 in all three channels, standardised as any image
    is, so that the encoder takes RGB later; `ab [B N C 2]`: mean chroma of the cells,
    Lab units; `coloured [B]`: whether the image isn't grey.
    """
    del key
    image = lab.rgb_to_lab(batch["image"])
    ab = image[..., 1:]
    grey = jnp.repeat(image[..., :1] / 100.0, 3, axis=-1)
    b, height, width, _ = image.shape
    side = patch // cells
    means = ab.reshape(b, height // side, side, width // side, side, 2).mean((2, 4))
    means = patches.patchify(means, cells)
    return {
        "image": normalize(grey),
        "ab": means.reshape(*means.shape[:2], cells**2, 2),
        "coloured": (jnp.abs(ab) > COLOURED).any((1, 2, 3)),
    }


def make_targets(ema, views, step, *, form, neighbours, sigma, rebalance):
    """The cells' `ab [B N C 2]`, and for classification their shares of the bins.

    `ids`, `weights [B N C K]`: the nearest bins and their shares; `balance [B N C]`:
    the weight of the nearest bin's colour (section 2.2); `histogram [B Q]`: how often
    a bin is nearest in an image, as shares of its cells. The paper counts the prior
    once over the training set; here it is that of the steps so far.
    """
    del step
    targets = {"ab": views["ab"], "coloured": views["coloured"]}
    if form == "regression":
        return targets
    ids, weights = lab.soft_encode(views["ab"], neighbours, sigma)
    prior = ema["prior"]
    balance = lab.rebalance(prior, lab.smooth(prior, sigma), rebalance)
    return targets | {
        "ids": ids,
        "weights": weights,
        "balance": balance[ids[..., 0]],
        "histogram": jax.nn.one_hot(ids[..., 0], BINS).mean((1, 2)),
    }


def cross_entropy(logits, targets):
    """Cross-entropy of the bins' shares, weighted by colour: `[B N C Q] -> [B N C]`."""
    right = jnp.take_along_axis(logits, targets["ids"], axis=-1)
    errors = jax.nn.logsumexp(logits, -1) - (targets["weights"] * right).sum(-1)
    return targets["balance"] * errors


def squared_error(outputs, targets):
    """Mean over a and b, in units of `AB_SCALE`: `[B N C 2] -> [B N C]`.

    Smooth L1 of beta 1 would be half of it: errors are below 1.
    """
    chex.assert_equal_shape([outputs, targets["ab"]])
    return jnp.square(outputs - targets["ab"] / AB_SCALE).mean(-1)


def to_ab(outputs, form, temperature):
    """The predicted chroma of the cells `[B N C 2]`, Lab units."""
    if form == "regression":
        return AB_SCALE * outputs
    return lab.annealed_mean(outputs, lab.bins(), temperature)


def loss_fn(outputs, targets, *, form, temperature):
    """Mean over all cells; those of grey images count as zero: `-> scalar, metrics`.

    The published code weights the gradient and prints the unweighted loss; here the
    loss itself is weighted, and isn't divided by the weights, whose mean is one.
    `ab_error` is the mean distance in the ab plane, Lab units; `top1` the share of
    cells whose nearest bin is the likeliest.
    """
    error = cross_entropy if form == "classification" else squared_error
    coloured = targets["coloured"][:, None, None]
    loss = jnp.where(coloured, error(outputs, targets), 0.0).mean()
    apart = to_ab(outputs, form, temperature) - targets["ab"]
    metrics = {
        # distance of predicted and true color in Lab's ab plane, mean over cells
        "ab_error": jnp.linalg.norm(apart, axis=-1).mean()
    }
    if form == "classification":
        right = outputs.argmax(-1) == targets["ids"][..., 0]
        metrics["top1"] = right.mean()  # share of cells whose nearest bin is likeliest
    return loss, metrics


def update_ema(ema, params, targets, step, *, horizon):
    """Running mean of the batches' histograms over at most `horizon` steps."""
    del params
    share = 1.0 / jnp.minimum(step + 1, horizon)
    counted = targets["histogram"].mean(0)
    return {"prior": ema["prior"] + share * (counted - ema["prior"])}


def draw(outputs, targets, views, *, grid, cells, mean_std, form, temperature):
    """One lightness without colour, with predicted and with true colours: `[B H W 3]`.

    In [0, 1]. Colours are those of cells, interpolated between the cells' centres.
    """
    grey = images.denormalize(views["image"], *mean_std)

    def paint(ab):
        ab = patches.unpatchify(ab.reshape(*ab.shape[:2], -1), cells, grid)
        ab = jax.image.resize(ab, (*grey.shape[:3], 2), "bilinear")
        return lab.lab_to_rgb(jnp.concatenate([100.0 * grey[..., :1], ab], -1))

    chroma = {
        "lightness, all that is seen": jnp.zeros_like(targets["ab"]),
        "predicted colours": to_ab(outputs, form, temperature),
        "true colours of the cells": targets["ab"],
    }
    return {name: paint(ab) for name, ab in chroma.items()}


def check(c, patch):
    """Raises UserError where colour cells don't divide a patch."""
    if c.patch_cells < 1 or patch % c.patch_cells:
        sides = [n for n in range(1, patch + 1) if patch % n == 0]
        raise UserError(
            f"config.method.patch_cells: {c.patch_cells} cells don't divide a patch of "
            f"{patch} px; choose one of {', '.join(map(str, sides))}"
        )


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    check(c, encoder.patch)
    counted = c.form == "classification"
    decoding = dict(form=c.form, temperature=c.temperature)
    prior = {}
    if counted:
        prior = dict(
            init_ema=lambda params: {"prior": jnp.full(BINS, 1.0 / BINS, jnp.float32)},
            update_ema=functools.partial(update_ema, horizon=c.prior_horizon),
        )
    return Method(
        model=Colorization(
            encoder=encoder, cells=c.patch_cells, features=BINS if counted else 2
        ),
        make_views=functools.partial(
            make_views,
            normalize=context.normalize,
            patch=encoder.patch,
            cells=c.patch_cells,
        ),
        make_targets=functools.partial(
            make_targets,
            form=c.form,
            neighbours=c.neighbours,
            sigma=c.sigma,
            rebalance=c.rebalance,
        ),
        loss_fn=functools.partial(loss_fn, **decoding),
        draw=functools.partial(
            draw,
            grid=encoder.grid,
            cells=c.patch_cells,
            mean_std=context.mean_std,
            **decoding,
        ),
        **prior,
    )
