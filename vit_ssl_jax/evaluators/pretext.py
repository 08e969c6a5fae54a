"""The objective itself on held-out images: its loss and its metrics."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition, step


def make_evaluator(method, mesh):
    """`evaluate(state, batches) -> {loss, ...}`: means over the images of `batches`.

    Images are resized and centre-cropped; what the method draws (masks, tiles, turns,
    its own jitter of patches) comes from fixed keys, so two states see the same.
    Dropout is off. Every image is judged by itself, so what only fills the last batch
    counts for nothing.
    """

    def judge(outputs, targets):
        one = jax.tree.map(lambda x: x[None], (outputs, targets))
        loss, metrics = method.loss_fn(*one)
        return {"loss": loss, **metrics}

    def forward(state, batch, valid, key):
        views = method.make_views(key, step.prepare(batch))
        outputs = method.model.apply({"params": state.params}, views, False)
        each = jax.vmap(judge)(outputs, method.make_targets(state.ema, views))
        return jax.tree.map(lambda x: jnp.where(valid, x, 0.0).sum(), each)

    whole = partition.replicated(mesh)
    forward = jax.jit(forward, out_shardings=whole)

    def evaluate(state, batches):
        state = state.replace(opt_state=())
        totals, count = {}, 0
        for i, batch in enumerate(batches):
            count += int(batch["valid"].sum())
            batch = partition.put(batch, partition.batch_sharding(mesh))
            valid = batch.pop("valid")
            with jax.set_mesh(mesh):
                sums = jax.device_get(forward(state, batch, valid, jax.random.key(i)))
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + np.float64(value)
        return {name: float(total / count) for name, total in totals.items()}

    return evaluate
