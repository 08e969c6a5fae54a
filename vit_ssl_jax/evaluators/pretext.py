"""The objective itself on held-out images: its loss and its metrics."""

import jax
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.ops import images


def make_evaluator(method, mesh):
    """`evaluate(state, batches) -> {loss, ...}`: means over the images of `batches`.

    Images are resized and centre-cropped; what the method draws (masks, tiles, turns)
    comes from fixed keys, so two states see the same. Dropout is off. The last batch is
    filled with copies of its last image, which count within it.
    """

    def forward(state, batch, key):
        views = method.make_views(
            key, {**batch, "image": images.to_float(batch["image"])}
        )
        outputs = method.model.apply({"params": state.params}, views, False)
        loss, metrics = method.loss_fn(outputs, method.make_targets(state.ema, views))
        return {"loss": loss, **metrics}

    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    forward = jax.jit(forward, out_shardings=whole)

    def evaluate(state, batches):
        state = state.replace(opt_state=())
        totals, count = {}, 0
        for i, batch in enumerate(batches):
            valid = int(batch.pop("valid").sum())
            batch = jax.device_put(batch, partition.batch_sharding(mesh))
            with jax.set_mesh(mesh):
                metrics = jax.device_get(forward(state, batch, jax.random.key(i)))
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + valid * np.float64(value)
            count += valid
        return {name: float(total / count) for name, total in totals.items()}

    return evaluate
