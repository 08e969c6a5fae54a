"""The objective itself on held-out images: its loss and its metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Wants, sharing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: only which images."""

    split: str  # whose images are taken


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
    """`forward(state, batch, key) -> {metric: [B]}`, of every image by itself.

    To be jitted. `batch` is uint8, as in training. A loss of whole batches counts as
    every image's.
    """

    def judge(outputs, targets):
        loss, metrics = method.loss_fn(outputs, targets)
        return {
            "loss": loss,  # the objective's loss on held-out images
            **metrics,
        }

    def judge_one(outputs, targets):
        return judge(*jax.tree.map(lambda x: x[None], (outputs, targets)))

    def forward(state, batch, key):
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        targets = method.make_targets(state.ema, views, state.step)
        if method.batch_loss:
            images = batch["image"].shape[:1]
            whole = judge(outputs, targets)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, images), whole)
        return jax.vmap(judge_one)(outputs, targets)

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
            placed, rest = sharing.place(batch, mesh)
            valid = rest["valid"]
            size, images = len(valid), int(valid.sum())
            if method.batch_loss and images < size:
                left_out += images
                continue
            count += images
            del placed["valid"]
            with jax.set_mesh(mesh):
                each = jax.device_get(forward(state, placed, jax.random.key(i)))
            for name, values in each.items():
                # In one order on any devices: the same digits.
                total = np.sum(values[valid], dtype=np.float64)
                totals[name] = totals.get(name, 0.0) + total
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
