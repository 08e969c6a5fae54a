"""Supervised ViT: classify images (Dosovitskiy et al., 2021)."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax.numpy as jnp
import optax

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import heads, layers, vit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    pool: str  # "cls": the class token; "mean": patches, normed after pooling
    loss: str  # "softmax", or "sigmoid": every class by itself, summed
    label_smoothing: float
    representation: int  # width of a tanh layer before the classifier, 0: none
    head_bias: float  # initial bias of the classifier
    head_std: float  # initial deviation of its kernel, 0: zeros
    ema: float  # decay of the averaged weights that are evaluated too, 0: none
    mixup: float  # alpha of mixup's Beta law, 0: no mixup
    cutmix: float  # alpha of CutMix's, 0: no CutMix
    mix_prob: float  # probability that a batch is mixed
    mix_switch: float  # probability of CutMix where both are on
    erase: float  # probability that a rectangle of an image is erased


class Supervised(nn.Module):
    """Encoder, representation layer where asked for, and linear classifier."""

    encoder: vit.ViT
    pool: str
    num_classes: int
    representation: int = 0
    head_bias: float = 0.0

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B classes]` float32."""
        style = self.encoder.style
        tokens = self.encoder(views["image"], train)
        x = heads.pooled(tokens, self.pool, self.encoder)
        if self.representation:
            x = nn.tanh(layers.dense(self.representation, style, "representation")(x))
        x = layers.dense(
            self.num_classes,
            style,
            "head",
            kernel_init=style.initial.head,
            bias_init=nn.initializers.constant(self.head_bias),
        )(x)
        return x.astype(jnp.float32)


def make_views(key, batch, *, normalize):
    """`image [B H W C]` standardised, `label [B]`."""
    del key
    return {"image": normalize(batch["image"]), "label": batch["label"]}


def make_targets(ema, views, *, num_classes, label_smoothing):
    """Soft labels `[B classes]`: `(1 - s)` on the label plus `s / classes` on all."""
    del ema
    one_hot = jnp.eye(num_classes, dtype=jnp.float32)[views["label"]]
    return optax.smooth_labels(one_hot, label_smoothing)


def loss_fn(outputs, targets, *, loss):
    """Cross-entropy, mean over images: `[B C], [B C] -> scalar, metrics`.

    "sigmoid" sums the binary cross-entropies of the classes (big_vision's pre-training
    on ImageNet-21k and -1k).
    """
    chex.assert_equal_shape([outputs, targets])
    if loss == "sigmoid":
        value = optax.sigmoid_binary_cross_entropy(outputs, targets).sum(-1).mean()
    else:
        value = optax.softmax_cross_entropy(outputs, targets).mean()
    right = outputs.argmax(-1) == targets.argmax(-1)
    return value, {"top1": right.mean()}


def make(c, context):
    """Closes the functions over a run's numbers."""
    vit.check_choice("config.method.loss", c.loss, ("softmax", "sigmoid"))
    if not 0 <= c.label_smoothing < 1 or c.representation < 0:
        raise UserError(
            f"config.method: label_smoothing={c.label_smoothing} must be at least 0 and "
            f"below 1, representation={c.representation} at least 0"
        )
    encoder = context.vit(final_norm=c.pool == "cls")
    vit.check_pool(c.pool, encoder.cls)
    if context.num_classes < 2:
        raise UserError(
            "config.method: 'supervised' needs labels, but the data has none; give "
            "class folders or a labelled set"
        )
    return Method(
        model=Supervised(
            encoder=encoder,
            pool=c.pool,
            num_classes=context.num_classes,
            representation=c.representation,
            head_bias=c.head_bias,
        ),
        make_views=functools.partial(make_views, normalize=context.normalize),
        make_targets=functools.partial(
            make_targets,
            num_classes=context.num_classes,
            label_smoothing=c.label_smoothing,
        ),
        loss_fn=functools.partial(loss_fn, loss=c.loss),
    )
