"""Gradients clipped before an optimiser, whose state stays its own."""

import optax


def clip_together(tx, limit):
    """Clips all gradients together to a norm of `limit`, then does as `tx`.

    The state is that of `tx`, so a run may begin to clip, or cease to.
    """
    clip = optax.clip_by_global_norm(limit)

    def update(grads, state, params, *, step):
        grads, _ = clip.update(grads, optax.EmptyState())
        return tx.update(grads, state, params, step=step)

    return optax.GradientTransformationExtraArgs(tx.init, update)
