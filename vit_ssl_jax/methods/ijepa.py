"""I-JEPA: predict a teacher's features of hidden blocks from one context block.

Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture
(Assran et al., 2023).
"""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.checks import MIN_ONE, POSITIVE, SHARE, one_of, span
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import Method
from vit_ssl_jax.models import decoder, vit
from vit_ssl_jax.ops import images, masks, multiblock, patches, prediction_map


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyper-parameters of the objective."""

    predictor_width: int  # of the predictor's blocks
    predictor_depth: int  # number of its blocks
    predictor_heads: int  # of each; published: as many as the encoder has
    num_contexts: int  # context blocks an image (nenc)
    num_targets: int  # target blocks an image (npred)
    context_scale: tuple  # (smallest, largest) share of the image in a context block
    context_aspect: tuple  # (smallest, largest) height / width of it
    target_scale: tuple  # (smallest, largest) share of the image in a target block
    target_aspect: tuple  # (smallest, largest) height / width of it
    min_keep: int  # a context must keep more tokens than this
    max_context: int  # bound on context tokens, 0: the largest block
    compat: str  # "none": uniform placement; "official": the published sampler
    trim_batch: int  # images trimmed together under "official" (one GPU's batch)
    ema_start: float  # momentum of the teacher at the first step
    ema_end: float  # and at the last, reached linearly
    ipe_scale: float  # stretches the momentum's ramp beyond the run


COUNTS = ("predictor_width", "predictor_depth", "predictor_heads")
COUNTS += ("num_contexts", "num_targets", "trim_batch")
RANGES = dict.fromkeys(COUNTS, MIN_ONE) | {
    "context_scale": span("share of the image", 1.0),
    "context_aspect": span("height / width"),
    "target_scale": span("share of the image", 1.0),
    "target_aspect": span("height / width"),
    "min_keep": ("at least 0", lambda x: x >= 0),
    "max_context": ("at least 0 (0: no bound)", lambda x: x >= 0),
    "compat": one_of("none", "official"),
    "ema_start": SHARE,
    "ema_end": SHARE,
    "ipe_scale": POSITIVE,
}


class IJEPA(nn.Module):
    """Context encoder and predictor."""

    encoder: vit.ViT
    predictor: decoder.Decoder

    def __call__(self, views, train):
        """Predicted features of the targets: `[B T E M D]` float32."""
        tokens = self.encoder.place(self.encoder.embed(views["image"]))
        b, e, k = views["context"].shape
        _, t, m = views["target"].shape
        ids, valid = (views[n].reshape(b, e * k) for n in ("context", "context_valid"))
        kept = patches.take(tokens, ids).reshape(b * e, k, -1)
        lengths = valid.reshape(b * e, k).sum(-1, dtype=jnp.int32)  # they come first
        latent = self.encoder.encode(kept, train, lengths, ids=ids.reshape(b * e, k))

        # One forward a target block and context: blocks never see each other.
        def pair(context, target):
            x = jnp.repeat(context.reshape(b, e, *context.shape[1:]), t, axis=0)
            y = jnp.repeat(target.reshape(b * t, m), e, axis=0)
            return x.reshape(b * t * e, *x.shape[2:]), y

        latent, target_ids = pair(latent, views["target"])
        context_ids, _ = pair(ids.reshape(b * e, k), views["target"])
        valid = jnp.concatenate(
            pair(valid.reshape(b * e, k), views["target_valid"]), axis=1
        )
        out = self.predictor(latent, context_ids, target_ids, train, valid)
        return out.reshape(b, t, e, m, -1)


def make_views(key, batch, *, normalize, sample):
    """`image [B H W C]`; ids and validity: `context [B E K]`, `target [B T M]`."""
    image = batch["image"]
    return {"image": normalize(image), **sample(key, len(image))}


def make_targets(ema, views, step, *, teacher):
    """The teacher's features of the targets, normed without affine: `[B T M D]`.

    The teacher sees the whole image. LayerNorm's epsilon is torch's 1e-5 here.
    """
    del step
    x = teacher.apply({"params": ema["encoder"]}, views["image"], False)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    b, t, m = views["target"].shape
    features = patches.take(x, views["target"].reshape(b, t * m)).reshape(b, t, m, -1)
    names = ("context_valid", "target_valid", "dropped", "overlap")
    return {"features": features, **{name: views[name] for name in names}}


def loss_fn(outputs, targets):
    """Smooth L1 (beta 1) over valid target tokens: `[B T E M D] -> scalar, metrics`.

    The paper says L2; the published code, and this, is smooth L1.
    """
    features = jnp.broadcast_to(targets["features"][:, :, None], outputs.shape)
    chex.assert_equal_shape([outputs, features])
    valid = targets["target_valid"][:, :, None, :]  # [B T 1 M]
    errors = optax.huber_loss(outputs, features, delta=1.0).mean(-1)
    count = valid.sum() * outputs.shape[2]
    loss = jnp.where(valid, errors, 0.0).sum() / count
    return loss, mask_metrics(targets, outputs.shape[2])


def mask_metrics(targets, num_contexts):
    """Shares of computed tokens that are real, and what the bounds cost an image."""
    context, target = targets["context_valid"], targets["target_valid"]
    k, m, t = context.shape[-1], target.shape[-1], target.shape[-2]
    kept, wanted = context.sum(-1).mean(), target.sum(-1).mean()
    valid = num_contexts * (kept + t * (kept + wanted))
    return {
        "mask/context_tokens": kept,  # tokens of a context block, mean
        "mask/target_tokens": wanted,  # tokens of a target block, mean
        "mask/context_valid": kept / k,  # share of the computed context tokens
        "mask/target_valid": wanted / m,  # share of the computed target tokens
        # share of real ones among all tokens of encoder and predictor
        "mask/valid": valid / (num_contexts * (k + t * (k + m))),
        # context tokens of an image left out by `max_context`, mean
        "mask/dropped": targets["dropped"].mean(),
        # share of images whose context meets a target, which no draw could avoid
        "mask/overlap": targets["overlap"].mean(),
    }


def draw(outputs, targets, views, *, grid, patch, mean_std):
    """Context and targets, all else dark, and how well targets are predicted.

    `{name: [B H W 3]}` in [0, 1], see `prediction_map.show`.
    """
    image = images.denormalize(views["image"], *mean_std)
    return prediction_map.show(image, outputs, targets, views, grid=grid, patch=patch)


def momentum(step, *, start, end, steps):
    """Weights (teacher, student) of the EMA at 0-based `step`: linear from start to end.

    The student's weight is computed by itself, for 1 - m loses digits near m = 1.
    """
    t = jnp.asarray(step, float) / steps
    student = (1.0 - start) * (1.0 - t) + (1.0 - end) * t
    return 1.0 - student, student


def update_ema(ema, params, targets, step, *, weights):
    """Moves the teacher towards the encoder, after the optimiser."""
    del targets
    teacher, student = weights(step)
    return jax.tree.map(
        lambda t, s: (teacher * t + student * s).astype(t.dtype),
        ema,
        {"encoder": params["encoder"]},
    )


def make_sampler(c, grid):
    """`(key, batch) -> views' ids`; raises UserError where the grid can't hold blocks."""
    context = masks.block_sizes(grid, c.context_scale, c.context_aspect)
    target = masks.block_sizes(grid, c.target_scale, c.target_aspect)
    where = f"on a grid of {grid[0]}x{grid[1]} patches"
    if min(grid) < 2 or target.smallest < 1 or context.smallest < 1:
        raise UserError(
            f"config.method: {where} a block can be empty; use a smaller patch, a "
            "larger image, or raise target_scale / context_scale"
        )
    official = c.compat == "official"
    judged = (context, target) if official else (context,)  # by min_keep
    smallest = min(sizes.smallest for sizes in judged)
    if smallest <= c.min_keep:
        raise UserError(
            f"config.method.min_keep: {where} a block can be as small as {smallest} "
            f"tokens, which min_keep={c.min_keep} never accepts; lower min_keep or use a "
            "smaller patch"
        )
    if c.max_context and not c.min_keep < c.max_context <= context.largest:
        raise UserError(
            f"config.method.max_context: {c.max_context} must lie above "
            f"min_keep={c.min_keep} and not above the largest context block, "
            f"{context.largest} tokens {where} (0: no bound)"
        )
    same = ("num_contexts", "num_targets", "min_keep", "max_context", "trim_batch")
    return functools.partial(
        multiblock.multiblock,
        grid=grid,
        context=context,
        target=target,
        official=official,
        **{key: getattr(c, key) for key in same},
    )


def make(c, context):
    """Closes the functions over a run's numbers."""
    encoder = context.vit()
    if encoder.cls:
        raise UserError("config.vit.cls: I-JEPA has no class token; set it to False")
    if c.predictor_width % c.predictor_heads or c.predictor_width % 4:
        raise UserError(
            f"config.method.predictor_width: {c.predictor_width} must be divisible by "
            f"4 and by predictor_heads={c.predictor_heads}"
        )
    predictor = decoder.Decoder(
        grid=encoder.grid,
        width=c.predictor_width,
        hidden=4 * c.predictor_width,
        depth=c.predictor_depth,
        heads=c.predictor_heads,
        features=encoder.width,
        cls=False,
        style=encoder.style,
    )
    sample = make_sampler(c, encoder.grid)
    ramp = dict(start=c.ema_start, end=c.ema_end, steps=c.ipe_scale * context.steps)
    weights = functools.partial(momentum, **ramp)
    return Method(
        model=IJEPA(encoder=encoder, predictor=predictor),
        make_views=functools.partial(
            make_views, normalize=context.normalize, sample=sample
        ),
        make_targets=functools.partial(make_targets, teacher=encoder.clone()),
        loss_fn=loss_fn,
        init_ema=lambda params: {"encoder": params["encoder"]},
        update_ema=functools.partial(update_ema, weights=weights),
        encoder=lambda params, ema: ema["encoder"],
        features=lambda targets: targets["features"],
        draw=functools.partial(
            draw, grid=encoder.grid, patch=encoder.patch, mean_std=context.mean_std
        ),
    )
