"""DINO: say of every crop of an image what a teacher says of its large crops.

Emerging Properties in Self-Supervised Vision Transformers (Caron et al., 2021). B
images, V crops an image of which the first T = 2 are global, K prototypes.

Crops are cut on the device, from one image of `config.data.train_size` pixels: a random
square window as wide as the photo's short side, at 384 px large enough for the smallest
crops. Of a 4:3 photo that is three quarters: crops show a fifth to a quarter less of it than
as published, where each is cut of the photo itself (docs/results/crops.md).
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
from vit_ssl_jax.models import crops, initial, layers, looking, outputs, vit
from vit_ssl_jax.models.dense import wide_einsum
from vit_ssl_jax.ops import multicrop

TEACHERS = 2  # global crops, which the teacher sees
EXCESS = {"official": 0.1, "none": 0.0}  # of the scale factor of positions
# Probabilities of the augmentations that differ from crop to crop: those of the global
# ones, and of any local one.
BLUR, SOLARIZE = (1.0, 0.1, 0.5), (0.0, 0.2, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    prototypes: int  # outputs of the head (out_dim)
    head_width: int  # of its two hidden layers
    bottleneck_width: int  # of the vector before the prototypes
    norm_last: bool  # prototypes have length 1; False: a length that is learned
    freeze_epochs: float  # of the beginning, in which the prototypes stay as they are
    local_crops: int  # of an image, beside the two global ones
    local_size: int  # pixels of a local crop's side
    global_scale: tuple  # (smallest, largest) share of the image in a global crop
    local_scale: tuple  # the same of a local crop
    student_temperature: float  # of the student's softmax
    teacher_temperature: float  # of the teacher's, after its warm-up
    warmup_temperature: float  # the teacher's in the first epoch
    warmup_temperature_epochs: int  # in which it goes to its last value
    centre_momentum: float  # decay of the mean of the teacher's outputs
    ema_start: float  # momentum of the teacher at the first step
    ema_end: float  # and at the last, reached by half a cosine
    pool: str  # "cls": the class token; "mean": of the patches
    compat: str  # "official": local crops' positions by a factor 0.1 too large


COUNTS = ("prototypes", "head_width", "bottleneck_width", "local_size")
TEMPERATURES = ("student_temperature", "teacher_temperature", "warmup_temperature")
RANGES = dict.fromkeys(COUNTS, MIN_ONE) | {
    **dict.fromkeys(TEMPERATURES, POSITIVE),
    "freeze_epochs": MIN_ZERO,
    "local_crops": MIN_ZERO,
    "global_scale": span("share of the image", 1.0),
    "local_scale": span("share of the image", 1.0),
    "warmup_temperature_epochs": MIN_ZERO,
    "centre_momentum": SHARE,
    "ema_start": SHARE,
    "ema_end": SHARE,
    "pool": one_of("cls", "mean"),
    "compat": one_of("none", "official"),
}


class Head(nn.Module):
    """Three layers, a vector of length 1, its products with the prototypes."""

    prototypes: int
    hidden: int
    bottleneck: int
    norm_last: bool
    style: layers.Style

    @nn.compact
    def __call__(self, x):
        """Cosines to the prototypes, times their lengths: `[B V D] -> [B V K]` float32."""
        style, shape = self.style, (self.bottleneck, self.prototypes)
        x = outputs.hidden(x, self.hidden, style, "first_embed")
        x = outputs.hidden(x, self.hidden, style, "second_embed")
        x = layers.dense(self.bottleneck, style, "bottleneck_embed")(x).astype(
            jnp.float32
        )
        x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        init = initial.torch_uniform(self.bottleneck)
        weight = self.param("prototypes", init, shape)
        weight = weight / jnp.linalg.norm(weight, axis=0, keepdims=True)
        if not self.norm_last:
            gain = self.param("gain", nn.initializers.ones, shape[1:])
            weight = weight * gain[None]
        low = (a.astype(style.dtype) for a in (x, weight))
        return wide_einsum("bvd,dk->bvk", *low)


class DINO(nn.Module):
    """Encoder and head; teacher and student are both of them."""

    encoder: vit.ViT
    head: Head
    pool: str
    excess: float  # of the scale factor of local crops' positions

    def __call__(self, views, train):
        """Outputs of all crops, the global ones first: `[B V K]` float32."""
        kinds = [views[name] for name in ("global", "local") if name in views]
        tokens = [self.features(image, train) for image in kinds]
        return self.head(jnp.concatenate(tokens, axis=1))

    def features(self, image, train):
        """One vector of each of the crops of one size: `[B V h w C] -> [B V D]`."""
        tokens = crops.encode(self.encoder, image, train, self.excess)
        x = vit.pool(tokens, self.pool, self.encoder.cls)
        return x.reshape(*image.shape[:2], -1)


def make_views(key, batch, *, normalize, size, c):
    """Standardised crops `global [B 2 H W C]` and, with some, `local [B V-2 h w C]`."""
    kinds = {
        "global": dict(
            size=size,
            scale=c.global_scale,
            blur=BLUR[:TEACHERS],
            solarize=SOLARIZE[:TEACHERS],
        ),
        "local": dict(
            size=(c.local_size, c.local_size),
            scale=c.local_scale,
            blur=BLUR[TEACHERS:] * c.local_crops,
            solarize=SOLARIZE[TEACHERS:] * c.local_crops,
        ),
    }
    views = multicrop.draw_kinds(key, batch["image"], kinds, "bicubic")
    return jax.tree.map(normalize, views)


def teacher_temperatures(c, epochs):
    """The teacher's temperature in each epoch: float64 `[epochs]`, linear, then constant."""
    first, last = c.warmup_temperature, c.teacher_temperature
    ramp = np.linspace(first, last, int(c.warmup_temperature_epochs))[:epochs]
    return np.concatenate([ramp, np.full(epochs - len(ramp), last)])


def make_targets(ema, views, step, *, model, temperatures, epochs_a_step):
    """What the teacher says of the global crops, centred and sharpened.

    `probability [B T K]`; `output [B K]`, the mean of its outputs before that.
    """
    params = {name: ema[name] for name in ("encoder", "head")}
    outputs = model.apply({"params": params}, {"global": views["global"]}, False)
    # Half a step, or rounding would move the last step of an epoch to the next.
    epoch = jnp.int32((step + 0.5) * epochs_a_step)
    temperature = jnp.asarray(temperatures, jnp.float32)[epoch]
    centred = (outputs - ema["centre"][None, None]) / temperature
    probability = jax.nn.softmax(centred, axis=-1)
    return {"probability": probability, "output": outputs.mean(1)}


def loss_fn(outputs, targets, *, temperature):
    """Cross-entropy, mean over pairs of two crops: `[B V K] -> scalar, metrics`.

    Of a teacher's and a student's crop that are not the same one. The loss is the `entropy`
    of the teacher's answers, from 0 to log K, which moves with its centre, and how far
    the student is from them, the `divergence`: 0 at best.
    """
    told = targets["probability"]
    b, t, k = told.shape
    chex.assert_shape(outputs, (b, None, k))
    scores, count = outputs / temperature, outputs.shape[1]
    own = jnp.pad(told, ((0, 0), (0, count - t), (0, 0)))  # of the same crop
    others = told.sum(1, keepdims=True) - own
    partners = jnp.where(jnp.arange(count) < t, t - 1, t)  # of each student's crop
    errors = partners[None] * jax.nn.logsumexp(scores, axis=-1)
    errors = errors - (others * scores).sum(-1)
    loss = errors.sum(1).mean() / (t * count - t)
    entropy = jax.scipy.special.entr(told).sum(-1).mean()
    metrics = {"entropy": entropy}  # of the teacher's answers: 0 to log(prototypes)
    metrics["divergence"] = loss - entropy  # student from teacher; 0 at best
    return loss, metrics


def momentum(step, *, start, end, steps):
    """Weights (teacher, student) at 0-based `step`: half a cosine from start to end."""
    left = jnp.cos(0.5 * jnp.pi * jnp.asarray(step, float) / steps) ** 2
    student = (1.0 - end) + (end - start) * left
    return 1.0 - student, student


def update_ema(ema, params, targets, step, *, weights, centre_momentum):
    """Moves the teacher towards the student, its centre to the mean of its outputs."""
    teacher, student = weights(step)
    trees = [{name: t[name] for name in ("encoder", "head")} for t in (ema, params)]
    moved = jax.tree.map(lambda t, s: teacher * t + student * s, *trees)
    mean = targets["output"].mean(0)
    centre = centre_momentum * ema["centre"] + (1.0 - centre_momentum) * mean
    return {**moved, "centre": centre}


def init_ema(params, *, prototypes):
    """The student as teacher, and a centre of zeros `[K]`."""
    centre = jnp.zeros(prototypes, jnp.float32)
    return {"encoder": params["encoder"], "head": params["head"], "centre": centre}


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    vit.check_pool(c.pool, encoder.cls)
    crops.check_local(c.local_size, encoder)
    head = Head(
        c.prototypes, c.head_width, c.bottleneck_width, c.norm_last, encoder.style
    )
    model = DINO(encoder, head, c.pool, EXCESS[c.compat])
    ramp = dict(start=c.ema_start, end=c.ema_end, steps=context.steps)
    frozen = c.freeze_epochs * context.steps / context.epochs
    return Method(
        model=model,
        make_views=functools.partial(
            make_views, normalize=context.normalize, size=encoder.size, c=c
        ),
        make_targets=functools.partial(
            make_targets,
            model=model.clone(),
            temperatures=teacher_temperatures(c, int(np.ceil(context.epochs)) + 1),
            epochs_a_step=context.epochs / context.steps,
        ),
        loss_fn=functools.partial(loss_fn, temperature=c.student_temperature),
        init_ema=functools.partial(init_ema, prototypes=c.prototypes),
        update_ema=functools.partial(
            update_ema,
            weights=functools.partial(momentum, **ramp),
            centre_momentum=c.centre_momentum,
        ),
        encoder=lambda params, ema: ema["encoder"],
        features=lambda targets: targets["output"],
        draw=lambda outputs, targets, views: multicrop.show(views, context.mean_std),
        draw_more=lambda params, ema, views: looking.look(
            encoder, ema["encoder"], views["global"][:, 0], c.pool, "global crop 1"
        ),
        crops=True,
        frozen=tuple((("head", name), frozen) for name in ("prototypes", "gain")),
    )
