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

    No moments gather meanwhile; `path` are the first of a parameter's names.
    """

    def hold(updates, step):
        def leaf(steps, x):
            return jnp.where(step < steps, 0.0, x)

        return map_frozen(leaf, updates, frozen)

    def update(grads, state, params, *, step):
        updates, state = tx.update(hold(grads, step), state, params, step=step)
        return hold(updates, step), state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def thaw(updates, count, frozen, b1, b2):
    """Adam's updates; of what was frozen bias correction counts from its own first step.

    As torch counts the steps of a parameter without a gradient; `count` are the others',
    which steps that were left out (`skipping`) aren't among.
    """

    def leaf(steps, x):
        own = jnp.maximum(count - jnp.ceil(steps), 1)
        first, second = ((1 - b**count) / (1 - b**own) for b in (b1, b2))
        return x * first / jnp.sqrt(second)

    return map_frozen(leaf, updates, frozen)


def map_frozen(function, tree, frozen):
    """`function(steps, x)` in the place of every `x` that `frozen` names."""

    def leaf(path, x):
        names = tuple(key.key for key in path)
        waits = [steps for first, steps in frozen if names[: len(first)] == first]
        return function(max(waits), x) if waits else x

    return jax.tree_util.tree_map_with_path(leaf, tree)
