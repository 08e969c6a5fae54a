"""Gradients clipped before an optimiser, parameters left alone; its state stays its own."""

import jax
import jax.numpy as jnp
import optax


def surround(tx, config, frozen):
    """Clips by `config.optim`, in front of `tx`, and freezes what `freeze` has to."""
    if frozen:
        tx = freeze(tx, frozen)
    if limit := getattr(config, "clip_each", 0.0):  # which older recipes lack
        tx = clip_each(tx, limit)
    return clip_together(tx, config.clip) if config.clip else tx


def clip_together(tx, limit):
    """Clips all gradients together to a norm of `limit`, then does as `tx`.

    The state is that of `tx`, so a run may begin to clip, or cease to.
    """
    clip = optax.clip_by_global_norm(limit)

    def update(grads, state, params, *, step):
        grads, _ = clip.update(grads, optax.EmptyState())
        return tx.update(grads, state, params, step=step)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def clip_each(tx, limit):
    """Clips every parameter's gradient by itself, then does as `tx`; state as above."""

    def update(grads, state, params, *, step):
        return tx.update(each(grads, limit), state, params, step=step)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def each(grads, limit):
    """Gradients scaled down to a norm of `limit`, each by itself.

    By `limit / (norm + 1e-6)`, where that is below 1; of scanned blocks every layer's
    (the published DINO's `clip_gradients`).
    """

    def leaf(path, x):
        stacked = any(key.key == "blocks" for key in path)
        axes = tuple(range(int(stacked), x.ndim))
        norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
        return x * jnp.minimum(limit / (norm + 1e-6), 1.0)

    return jax.tree_util.tree_map_with_path(leaf, grads)


def freeze(tx, frozen):
    """Leaves parameters as they are in the first steps: `frozen` has (path, steps).

    Their moments gather meanwhile; `path` are the first of a parameter's names.
    """

    def update(grads, state, params, *, step):
        updates, state = tx.update(grads, state, params, step=step)

        def leaf(path, x):
            names = tuple(key.key for key in path)
            waits = [steps for first, steps in frozen if names[: len(first)] == first]
            return jnp.where(step < max(waits), 0.0, x) if waits else x

        return jax.tree_util.tree_map_with_path(leaf, updates), state

    return optax.GradientTransformationExtraArgs(tx.init, update)
