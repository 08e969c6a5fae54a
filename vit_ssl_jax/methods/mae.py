"""MAE: hide most patches, encode the rest, reconstruct the pixels of the hidden ones.

Masked Autoencoders Are Scalable Vision Learners (He et al., 2022).
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax.checks import MIN_ONE, SHARE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import decoder, vit
from vit_ssl_jax.ops import images, masks, patches

RATIOS = (0.75, 0.85, 0.95)  # of the paper's figure 4
GIVEN = ", each patch with the mean and deviation of its true pixels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    mask_ratio: float  # share of hidden patches
    decoder_width: int  # of the decoder's blocks
    decoder_depth: int  # number of its blocks
    decoder_heads: int  # attention heads of each
    norm_pixels: bool  # standardize every target patch (norm_pix_loss)
    # its positions: "sincos", or "learned", of weights with another table
    decoder_posemb: str = "sincos"


RANGES = {
    "mask_ratio": SHARE,
    "decoder_width": MIN_ONE,
    "decoder_depth": MIN_ONE,
    "decoder_heads": MIN_ONE,
    "decoder_posemb": one_of("sincos", "learned"),
}


class MAE(nn.Module):
    """Encoder over the visible patches, decoder over all."""

    encoder: vit.ViT
    decoder: decoder.Decoder

    def __call__(self, views, train):
        """Pixels of the hidden patches: `[B M P*P*C]` float32."""
        tokens = self.encoder.place(self.encoder.embed(views["image"]))
        keep = views["keep"]
        latent = self.encoder.encode(patches.take(tokens, keep), train, ids=keep)
        return self.decoder(latent, views["keep"], views["hide"], train)


def kept_tokens(tokens, mask_ratio):
    """Number of visible patches: the published `int(N * (1 - ratio))`, float as it is."""
    return int(tokens * (1 - mask_ratio))


def make_views(key, batch, *, normalize, tokens, kept):
    """`image [B H W C]` standardised; `keep [B K]`, `hide [B M]` ids in random order."""
    keep, hide = masks.random_split(key, len(batch["image"]), tokens, kept)
    return {"image": normalize(batch["image"]), "keep": keep, "hide": hide}


def make_targets(ema, views, step, *, patch, norm_pixels):
    """Pixels of the hidden patches `[B M P*P*C]`, standardised one by one if asked.

    The variance is the unbiased one (n - 1), its epsilon 1e-6.
    """
    del ema, step
    pixels = patches.take(patches.patchify(views["image"], patch), views["hide"])
    if not norm_pixels:
        return pixels
    mean = pixels.mean(-1, keepdims=True)
    variance = pixels.var(-1, ddof=1, keepdims=True)
    return (pixels - mean) / jnp.sqrt(variance + 1e-6)


def loss_fn(outputs, targets):
    """Mean squared error over hidden patches: `[B M F], [B M F] -> scalar, {}`."""
    chex.assert_equal_shape([outputs, targets])
    return jnp.mean(jnp.square(outputs - targets)), {}


def draw(outputs, targets, views, *, grid, patch, mean_std, norm_pixels):
    """Images masked, what is predicted, and that pasted in: `{name: [B H W 3]}` in [0, 1].

    Where nothing is seen or predicted, the mean colour is. With `norm_pixels` a patch is
    drawn with the mean and deviation of its true pixels, which the model didn't predict:
    the name says so.
    """
    del targets
    cells, told = patches.patchify(views["image"], patch), ""
    if norm_pixels:
        hidden = patches.take(cells, views["hide"])
        std = jnp.sqrt(hidden.var(-1, ddof=1, keepdims=True) + 1e-6)
        outputs, told = outputs * std + hidden.mean(-1, keepdims=True), GIVEN
    rows = jnp.arange(len(cells))[:, None]

    def put(cells, values):
        x = patches.unpatchify(cells.at[rows, views["hide"]].set(values), patch, grid)
        return images.denormalize(x, *mean_std)

    return {
        "masked": put(cells, 0.0),
        f"prediction{told}": put(jnp.zeros_like(cells), outputs),
        f"prediction pasted in{told}": put(cells, outputs),
    }


def draw_more(params, ema, views, *, model, draw):
    """The same with more hidden than in training, as in the paper's figure 4.

    What is hidden at one ratio is hidden at the next.
    """
    del ema
    trained = views["keep"].shape[1]
    order, more = jnp.concatenate([views["keep"], views["hide"]], axis=1), {}
    for ratio in RATIOS:
        kept = kept_tokens(order.shape[1], ratio)
        if kept in (0, trained):
            continue
        others = {**views, "keep": order[:, :kept], "hide": order[:, kept:]}
        outputs = model.apply({"params": params}, others, False)
        masked, _, pasted = draw(outputs, None, others).items()
        for name, picture in (masked, pasted):
            more[f"{100 * ratio:.0f} % hidden: {name}"] = picture
    return more


def check(c, tokens, kept):
    """Raises UserError where no patch is kept or hidden, or heads don't divide a width."""
    if not 0 < kept < tokens:
        raise UserError(
            f"config.method.mask_ratio: {c.mask_ratio} keeps {kept} of {tokens} "
            "patches; at least one must be kept and one hidden"
        )
    if c.decoder_width % c.decoder_heads or c.decoder_width % 4:
        raise UserError(
            f"config.method.decoder_width: {c.decoder_width} must be divisible by 4 "
            f"and by decoder_heads={c.decoder_heads}"
        )


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    tokens = encoder.grid[0] * encoder.grid[1]
    kept = kept_tokens(tokens, c.mask_ratio)
    check(c, tokens, kept)
    model = MAE(
        encoder=encoder,
        decoder=decoder.Decoder(
            grid=encoder.grid,
            width=c.decoder_width,
            hidden=4 * c.decoder_width,
            depth=c.decoder_depth,
            heads=c.decoder_heads,
            features=3 * encoder.patch**2,
            cls=encoder.cls,
            style=encoder.style,
            posemb=c.decoder_posemb,
        ),
    )

    numbers = dict(patch=encoder.patch, norm_pixels=c.norm_pixels)
    bound = dict(grid=encoder.grid, mean_std=context.mean_std, **numbers)
    draws = functools.partial(draw, **bound)
    return Method(
        model=model,
        make_views=functools.partial(
            make_views, normalize=context.normalize, tokens=tokens, kept=kept
        ),
        make_targets=functools.partial(make_targets, **numbers),
        loss_fn=loss_fn,
        draw=draws,
        draw_more=functools.partial(draw_more, model=model.clone(), draw=draws),
    )
