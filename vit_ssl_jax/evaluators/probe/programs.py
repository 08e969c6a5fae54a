"""What of a probe is compiled: its first state, and the step of all its heads."""

import functools

import jax

from vit_ssl_jax import partition
from vit_ssl_jax.evaluators.probe import heads


def make_programs(config, read, *, widths, classes, steps, mesh):
    """Makes `init() -> state` and `update(state, batch, params) -> (state, losses)`.

    `read` and `params` are those of a `feeds.Feed`, `widths` is `{readout: F}`. The
    heads are whole on every device of the mesh, the batch is split over them.
    """
    update = functools.partial(learn_batch, config, read, steps)
    init = functools.partial(heads.init, config, widths, classes)
    whole = partition.replicated(mesh)
    return (
        jax.jit(init, out_shardings=whole),
        jax.jit(update, out_shardings=whole, donate_argnums=0),
    )


def learn_batch(config, read, steps, state, batch, params):
    """One step of all heads on a batch, of `steps` in all: `(state, losses)`."""
    factor = heads.make_schedule(config, steps / config.epochs)
    features = read(params, batch)
    with jax.named_scope("optimizer"):
        return heads.learn(config, factor, state, features, batch["label"])
