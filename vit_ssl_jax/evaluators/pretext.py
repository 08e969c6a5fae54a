"""The objective itself on held-out images: its loss and its metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Wants


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: only which images."""

    split: str


RANGES = {}


def wants(c):
    """Plain images, labelled or not, and the whole model."""
    del c
    return Wants(plain=("split",), labels=False, model=True)


def check(c, run, open_split):
    """Nothing can be wrong that isn't in training."""


def make(c, run):
    """`evaluate(state, inputs)` over the run's mesh."""
    del c
    judge = make_evaluator(run.method, run.mesh)
    return lambda state, inputs: judge(state, inputs.plain("split"))


def make_forward(method):
    """`forward(state, batch, valid [B], key) -> {metric: sum over valid images}`.

    To be jitted. `batch` is uint8, as in training. A loss of whole batches counts as
    every image's; all of them are valid then.
    """

    def judge(outputs, targets):
        loss, metrics = method.loss_fn(outputs, targets)
        return {"loss": loss, **metrics}

    def judge_one(outputs, targets):
        return judge(*jax.tree.map(lambda x: x[None], (outputs, targets)))

    def forward(state, batch, valid, key):
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views, state.step)
        if method.batch_loss:
            return jax.tree.map(lambda x: len(valid) * x, judge(outputs, targets))
        each = jax.vmap(judge_one)(outputs, targets)
        return jax.tree.map(lambda x: jnp.where(valid, x, 0.0).sum(), each)

    return forward


def make_evaluator(method, mesh):
    """`evaluate(state, batches) -> {loss, ...}`: means over the images of `batches`.

    Images are resized and centre-cropped; what the method draws (masks, tiles, turns,
    its own jitter of patches) comes from fixed keys, so two states see the same.
    Dropout is off. Every image is judged by itself, so what only fills the last batch
    counts for nothing. Where the loss is one of whole batches (`Method.batch_loss`), only
    those are judged in which every image is there: images behind the last full one are
    left out. Raises UserError where no batch is full.
    """

    whole = partition.replicated(mesh)
    forward = jax.jit(make_forward(method), out_shardings=whole)

    def evaluate(state, batches):
        state = state.replace(opt_state=())
        totals, count, left_out = {}, 0, 0
        for i, batch in enumerate(batches):
            size, images = len(batch["valid"]), int(batch["valid"].sum())
            if method.batch_loss and images < size:
                left_out += images
                continue
            count += images
            batch = partition.put(batch, partition.batch_sharding(mesh))
            valid = batch.pop("valid")
            with jax.set_mesh(mesh):
                sums = jax.device_get(forward(state, batch, valid, jax.random.key(i)))
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + np.float64(value)
        if left_out and not count:
            raise UserError(refuse(size, left_out, partition.ways(mesh)))
        return {name: float(total / count) for name, total in totals.items()}

    return evaluate


def refuse(size, images, ways):
    """Why `images` fill no batch of `size` on `ways` devices, and what to set."""
    most = images // ways * ways
    return (
        f"config.data.eval_batch_size: the loss is one of whole batches, and {images} "
        f"images fill none of {size}; "
        + (f"set it to {most}" if most else f"give a split of at least {ways} images")
    )
