"""Rotation: tell by how many quarter turns an image was turned.

Unsupervised Representation Learning by Predicting Image Rotations (Gidaris, Singh and
Komodakis, 2018).
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import outputs, vit
from vit_ssl_jax.ops import images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    turns: str  # "all": four turns of every image; "one": a random one, 4x cheaper
    pool: str  # "cls": the class token; "mean": patches, normed after pooling


RANGES = {"turns": one_of("all", "one"), "pool": one_of("cls", "mean")}


class Rotation(nn.Module):
    """Encoder and linear classifier of four turns."""

    encoder: vit.ViT
    pool: str

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B T 4]` float32."""
        image, style = views["image"], self.encoder.style
        b, t = image.shape[:2]
        tokens = self.encoder(image.reshape(b * t, *image.shape[2:]), train)
        x = outputs.pooled(tokens, self.pool, self.encoder)
        x = outputs.logits(4, style, "head")(x)
        return x.reshape(b, t, 4)


def turn(image, turns):
    """Turns counter-clockwise, like `np.rot90`: `[B S S C], [B T] -> [B T S S C]`.

    Flips and transposes only: pixels move, none is interpolated, so that no trace of a
    resize tells the answer.
    """
    turns = turns[..., None, None, None]
    image = image[:, None]
    quarter = jnp.flip(image.swapaxes(2, 3), axis=2)
    x = jnp.where(turns % 2 == 1, quarter, image)
    return jnp.where(turns >= 2, jnp.flip(x, axis=(2, 3)), x)


def make_views(key, batch, *, normalize, turns):
    """`image [B T S S C]` turned, then standardised; `label [B T]` quarter turns.

    T is 4, every image in all its turns, or 1.
    """
    b = len(batch["image"])
    if turns == "all":
        label = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32), (b, 4))
    else:
        label = jax.random.randint(key, (b, 1), 0, 4, jnp.int32)
    return {"image": normalize(turn(batch["image"], label)), "label": label}


def make_targets(ema, views, step):
    """Quarter turns `[B T]`."""
    del ema, step
    return views["label"]


def loss_fn(outputs, targets):
    """Softmax cross-entropy, mean over turned images: `[B T 4], [B T] -> scalar, top1`.

    Chance is log 4 = 1.386 and a top-1 of 0.25.
    """
    chex.assert_shape(outputs, (*targets.shape, 4))
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    right = outputs.argmax(-1) == targets
    return loss, {
        "top1": right.mean(),  # share of images whose turn is right; chance: 0.25
    }


def draw(outputs, targets, views, *, mean_std):
    """Turned images, and turned back as predicted and truly: `[B S S 3]` in [0, 1].

    Of an image in several turns one is drawn, another one from image to image.
    """
    rows = jnp.arange(len(targets))
    one = rows, rows % targets.shape[1]
    seen = images.denormalize(views["image"][one], *mean_std)
    turns = {
        "turned": 0 * rows,
        "turned back as predicted": -outputs[one].argmax(-1) % 4,
        "turned back truly": -targets[one] % 4,
    }
    return {name: turn(seen, n[:, None])[:, 0] for name, n in turns.items()}


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit(final_norm=c.pool == "cls")
    vit.check_pool(c.pool, encoder.cls)
    height, width = encoder.size
    if height != width:
        raise UserError(
            f"config.data.size: {height}x{width} px is not square, and turned images "
            f"must keep their shape; set it to ({height}, {height})"
        )
    return Method(
        model=Rotation(encoder=encoder, pool=c.pool),
        make_views=functools.partial(
            make_views, normalize=context.normalize, turns=c.turns
        ),
        make_targets=make_targets,
        loss_fn=loss_fn,
        draw=functools.partial(draw, mean_std=context.mean_std),
    )
