"""Supervised ViT: classify images (Dosovitskiy et al., 2021); fine-tuning, too."""

import dataclasses
import functools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import BELOW_ONE, MIN_ONE, MIN_ZERO, SHARE, one_of
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import layers, outputs, vit
from vit_ssl_jax.ops import images, mixing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    # "cls": the class token; "mean": patches, normed after pooling; "normed_mean": normed
    # before it, as in big_vision's "gap"
    pool: str
    loss: str  # "softmax", or "sigmoid": every class by itself, summed
    label_smoothing: float  # share of a label that goes to all classes alike
    representation: int  # width of a tanh layer before the classifier, 0: none
    head_bias: float  # initial bias of the classifier
    head_std: float  # initial deviation of its kernel, 0: zeros
    ema: float  # decay of the averaged weights that are evaluated too, 0: none
    mixup: float  # alpha of mixup's Beta law, 0: no mixup
    cutmix: float  # alpha of CutMix's, 0: no CutMix
    mix_prob: float  # probability that a batch is mixed
    mix_switch: float  # probability of CutMix where both are on
    erase: float  # probability that a rectangle of an image is erased
    mix_groups: int = 1  # of a batch, that are mixed each by a draw of its own


RANGES = {
    "pool": one_of("cls", "mean", "normed_mean"),
    "loss": one_of("softmax", "sigmoid"),
    "label_smoothing": BELOW_ONE,
    "representation": ("at least 0", lambda x: x >= 0),
    "head_bias": ("a finite number", math.isfinite),
    "head_std": MIN_ZERO,
    "ema": BELOW_ONE,
    "mixup": MIN_ZERO,
    "cutmix": MIN_ZERO,
    "mix_prob": SHARE,
    "mix_switch": SHARE,
    "erase": SHARE,
    "mix_groups": MIN_ONE,
}


class Supervised(nn.Module):
    """Encoder, representation layer where asked for, and linear classifier."""

    encoder: vit.ViT
    pool: str
    num_classes: int
    representation: int = 0
    head_bias: float = 0.0
    head_std: float = 0.02  # timm's

    @nn.compact
    def __call__(self, views, train):
        """Logits `[B classes]` float32."""
        style = self.encoder.style
        tokens = self.encoder(views["image"], train)
        x = outputs.pooled(tokens, self.pool, self.encoder)
        if self.representation:
            x = nn.tanh(layers.dense(self.representation, style, "representation")(x))
        return outputs.logits(
            self.num_classes,
            style,
            "head",
            kernel_init=nn.initializers.normal(self.head_std),
            bias_init=nn.initializers.constant(self.head_bias),
        )(x)


def make_views(key, batch, *, normalize, augment, groups):
    """`image [B H W C]` standardised and augmented, and what it shows.

    `label [B]` and `partner [B]`: the classes of the image and of the one that was mixed
    in; `share [B]`: the image's own part, 1 where nothing was.
    """
    image, label = normalize(batch["image"]), batch["label"]
    image, share = augment(key, image)
    partner = mixing.partners(label, groups)
    return {"image": image, "label": label, "partner": partner, "share": share}


def augment(key, image, *, config):
    """Erases, then mixes, as `config` asks: `[B H W C] -> [B H W C], share [B]`."""
    erase_key, mix_key = jax.random.split(key)
    if config.erase:
        image = mixing.erase(erase_key, image, probability=config.erase)
    if config.mixup or config.cutmix:
        return mixing.mix_in_groups(
            mix_key,
            image,
            groups=config.mix_groups,
            mixup=config.mixup,
            cutmix=config.cutmix,
            probability=config.mix_prob,
            switch=config.mix_switch,
        )
    return image, jnp.ones(len(image), jnp.float32)


def make_targets(ema, views, step, *, num_classes, label_smoothing):
    """Soft labels `[B classes]`: `share` on the label and the rest on the partner's.

    Smoothed by `(1 - s) y + s / classes`.
    """
    del ema, step
    classes = jnp.eye(num_classes, dtype=jnp.float32)
    share = views["share"][:, None]
    soft = share * classes[views["label"]] + (1.0 - share) * classes[views["partner"]]
    return optax.smooth_labels(soft, label_smoothing)


def loss_fn(outputs, targets, *, loss):
    """Cross-entropy, mean over images: `[B C], [B C] -> scalar, metrics`.

    "sigmoid" sums the binary cross-entropies of the classes (big_vision's pre-training
    on ImageNet-21k and -1k). `top1` is the share of images whose heaviest class is
    named, that of the larger part of a mixed one.
    """
    chex.assert_equal_shape([outputs, targets])
    if loss == "sigmoid":
        value = optax.sigmoid_binary_cross_entropy(outputs, targets).sum(-1).mean()
    else:
        value = optax.softmax_cross_entropy(outputs, targets).mean()
    right = outputs.argmax(-1) == targets.argmax(-1)
    return (
        value,
        {
            "top1": right.mean(),  # share of right classes, of mixed images the main one
        },
    )


def draw(outputs, targets, views, *, mean_std, loss):
    """What is classified, its class, and the one that is predicted, with its probability.

    Images `[B H W 3]` in [0, 1], classes and probabilities `[B]`. Of a mixed image the true
    class is that of the larger part.
    """
    squash = jax.nn.sigmoid if loss == "sigmoid" else jax.nn.softmax
    known, true = views["label"] >= 0, targets.argmax(-1)
    return {
        "as it is classified": images.denormalize(views["image"], *mean_std),
        "true class": jnp.where(known, true, -1).astype(jnp.int32),
        "predicted class": outputs.argmax(-1).astype(jnp.int32),
        "its probability": squash(outputs).max(-1),
    }


def update_ema(ema, params, targets, step, *, decay):
    """Moves the averaged weights towards those after the step (Polyak averaging).

    `decay ema + (1 - decay) params`, written so that equal weights stay bit-equal.
    """
    del targets, step
    return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit(final_norm=c.pool != "mean")
    vit.check_pool(c.pool, encoder.cls)
    if context.num_classes < 2:
        raise UserError(
            "config.method: 'supervised' needs labels, but the data has none; give "
            "class folders or a labelled set"
        )
    averaged = dict(
        init_ema=lambda params: params,
        update_ema=functools.partial(update_ema, decay=c.ema),
        encoder=lambda params, ema: ema["encoder"],
        averages=True,
    )
    model = Supervised(
        encoder=encoder,
        pool=c.pool,
        num_classes=context.num_classes,
        representation=c.representation,
        head_bias=c.head_bias,
        head_std=c.head_std,
    )
    return Method(
        model=model,
        make_views=functools.partial(
            make_views,
            normalize=context.normalize,
            augment=functools.partial(augment, config=c),
            groups=c.mix_groups,
        ),
        make_targets=functools.partial(
            make_targets,
            num_classes=context.num_classes,
            label_smoothing=c.label_smoothing,
        ),
        loss_fn=functools.partial(loss_fn, loss=c.loss),
        draw=functools.partial(draw, mean_std=context.mean_std, loss=c.loss),
        logits=lambda params, image: model.apply(
            {"params": params}, {"image": image}, False
        ),
        needs_labels=True,
        **(averaged if c.ema else {}),
    )
