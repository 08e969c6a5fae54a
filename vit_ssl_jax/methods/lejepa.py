"""LeJEPA: crops of an image agree, and all images together look like a Gaussian.

LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics (Balestriero
and LeCun, 2025). No teacher, no stopped gradient. B images, V views an image, P numbers
a projection, S slices.

Views are cut on the device, from one image of `config.data.train_size` pixels: see
`methods/dino.py`. The published example puts a linear layer of 512 between encoder and
projector, and judges that; here the projector begins at the encoder's output.
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.checks import MIN_ONE, MIN_ZERO, POSITIVE, SHARE, one_of, span
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import crops, looking, vit
from vit_ssl_jax.models.dense import wide_einsum
from vit_ssl_jax.models.projector import Projector
from vit_ssl_jax.ops import multicrop

BLUR, SOLARIZE = 0.5, 0.2  # probabilities, of every view


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    projector_width: int  # of its two hidden layers
    projection_width: int  # numbers a view (P)
    weight: float  # of SIGReg (lambda); 1 - weight is that of the agreement
    slices: int  # directions in which a step tests for a Gaussian
    points: int  # at which the characteristic function is compared
    furthest: float  # the last of them; the first is 0
    global_crops: int  # large views of an image
    local_crops: int  # small ones
    local_size: int  # pixels of a local view's side
    global_scale: tuple  # (smallest, largest) share of the image in a large view
    local_scale: tuple  # the same of a small one
    pool: str  # "cls": the class token; "mean": of the patches


COUNTS = ("projector_width", "projection_width", "slices", "local_size", "global_crops")
RANGES = dict.fromkeys(COUNTS, MIN_ONE) | {
    "weight": SHARE,
    "points": ("at least 2", lambda x: x >= 2),
    "furthest": POSITIVE,
    "local_crops": MIN_ZERO,
    "global_scale": span("share of the image", 1.0),
    "local_scale": span("share of the image", 1.0),
    "pool": one_of("cls", "mean"),
}


class LeJEPA(nn.Module):
    """Encoder and projector."""

    encoder: vit.ViT
    projector: Projector
    pool: str

    def __call__(self, views, train):
        """Projections of all views, the global ones first: `[B V P]` float32."""
        kinds = [views[name] for name in ("global", "local") if name in views]
        x = jnp.concatenate([self.features(image, train) for image in kinds], axis=1)
        b, v, width = x.shape
        return self.projector(x.reshape(b * v, width)).reshape(b, v, -1)

    def features(self, image, train):
        """One vector of each of the views of one size: `[B V h w C] -> [B V D]`."""
        tokens = crops.encode(self.encoder, image, train)
        x = vit.pool(tokens, self.pool, self.encoder.cls)
        return x.reshape(*image.shape[:2], -1)


def make_views(key, batch, *, normalize, size, c):
    """Standardised views `global [B V H W C]` and, with some, `local [B V h w C]`.

    `seed [B]` uint32, the same number B times, is what the step's slices are drawn by.
    """
    crops_key, seed_key = jax.random.split(key)
    kinds = {
        name: dict(
            size=side, scale=scale, blur=count * (BLUR,), solarize=count * (SOLARIZE,)
        )
        for name, count, side, scale in (
            ("global", c.global_crops, size, c.global_scale),
            ("local", c.local_crops, (c.local_size, c.local_size), c.local_scale),
        )
    }
    views = multicrop.draw_kinds(crops_key, batch["image"], kinds, "bilinear")
    seed = jnp.broadcast_to(jax.random.bits(seed_key), (len(batch["image"]),))
    return jax.tree.map(normalize, views) | {"seed": seed}


def make_targets(ema, views, step):
    """The seed of the step's slices, B times: `[B]` uint32."""
    del ema, step
    return views["seed"]


def draw_slices(seed, width, count):
    """Random directions, columns of length 1: uint32 -> `[P S]` float32."""
    slices = jax.random.normal(jax.random.key(seed), (width, count))
    return slices / jnp.linalg.norm(slices, axis=0, keepdims=True)


def epps_pulley(x, points, furthest):
    """How far samples are from a standard Gaussian: `[B V S] -> [V S]`.

    The Epps-Pulley statistic: the squared distance of their characteristic function to the
    Gaussian's, weighted by that, integrated over `[-furthest, furthest]` (by symmetry
    over its upper half, the trapezoid rule), times B.
    """
    t = np.linspace(0.0, furthest, points, dtype=np.float32)
    gaussian = np.exp(-np.square(t) / 2.0)
    weights = np.full(points, 2.0 * furthest / (points - 1), np.float32)
    weights[[0, -1]] /= 2.0
    angles = x[..., None] * t.reshape(1, 1, 1, -1)
    real, imaginary = jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)
    apart = jnp.square(real - gaussian.reshape(1, 1, -1)) + jnp.square(imaginary)
    return len(x) * jnp.sum(apart * (weights * gaussian).reshape(1, 1, -1), axis=-1)


def loss_parts(outputs, slices, *, points, furthest, dtype):
    """SIGReg's statistics and how far views disagree: `[B V P] -> [V S], scalar`."""
    low = (a.astype(dtype) for a in (outputs, slices))
    statistic = epps_pulley(wide_einsum("bvp,ps->bvs", *low), points, furthest)
    apart = jnp.square(outputs - outputs.mean(1, keepdims=True)).mean()
    return statistic, apart


def loss_fn(outputs, targets, *, weight, slices, **numbers):
    """`weight` x SIGReg + (1 - weight) x disagreement: `[B V P], [B] -> scalar, metrics`."""
    chex.assert_shape(outputs, (len(targets), None, None))
    # All are the same number; a maximum asks no device for its first image.
    drawn = draw_slices(targets.max(), outputs.shape[-1], slices)
    statistic, apart = loss_parts(outputs, drawn, **numbers)
    sigreg = statistic.mean()
    metrics = {
        "sigreg": sigreg,  # how far projections are from a Gaussian; 0 at best
        "invariance": apart,  # how far views of an image are apart; 0 at best
    }
    return weight * sigreg + (1.0 - weight) * apart, metrics


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    vit.check_pool(c.pool, encoder.cls)
    crops.check_local(c.local_size, encoder)
    style = encoder.style
    projector = Projector(c.projector_width, c.projection_width, style)
    numbers = dict(points=c.points, furthest=c.furthest, dtype=style.dtype)
    return Method(
        model=LeJEPA(encoder, projector, c.pool),
        make_views=functools.partial(
            make_views, normalize=context.normalize, size=encoder.size, c=c
        ),
        make_targets=make_targets,
        loss_fn=functools.partial(loss_fn, weight=c.weight, slices=c.slices, **numbers),
        draw=lambda outputs, targets, views: multicrop.show(views, context.mean_std),
        draw_more=lambda params, ema, views: looking.look(
            encoder, params["encoder"], views["global"][:, 0], c.pool, "global crop 1"
        ),
        batch_loss=True,
        crops=True,
    )
