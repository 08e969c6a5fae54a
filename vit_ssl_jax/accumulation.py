"""Gradients summed over micro-batches, so that a large batch needs little memory."""

import jax
import jax.numpy as jnp

from vit_ssl_jax import partition


def accumulate(micro_step, views, key, accum):
    """Means of loss, metrics and gradients over `accum` micro-batches; all targets.

    Micro-batch i holds examples i, i + accum, ..., so that each stays on its device.
    Targets come back in the order of the examples `[B ...]`; the compiler drops those
    that nobody looks at.
    """
    if accum == 1:
        return micro_step(views, key)

    def split(x):
        x = x.reshape(x.shape[0] // accum, accum, *x.shape[1:])
        return jnp.moveaxis(x, 1, 0)

    def join(x):
        x = jnp.moveaxis(x, 0, 1)
        return partition.pin_batch(x.reshape(-1, *x.shape[2:]))

    def body(total, xs):
        views, i = xs
        views = jax.tree.map(partition.pin_batch, views)
        out, grads, targets = micro_step(views, jax.random.fold_in(key, i))
        total = jax.tree.map(lambda t, x: t + x / accum, total, (out, grads))
        return total, targets

    views = jax.tree.map(split, views)
    first = jax.tree.map(lambda x: x[0], views)
    out, grads, _ = jax.eval_shape(micro_step, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (out, grads))
    (out, grads), targets = jax.lax.scan(body, zeros, (views, jnp.arange(accum)))
    return out, grads, jax.tree.map(join, targets)
