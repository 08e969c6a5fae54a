"""Partial fine-tuning: the encoder's last blocks learn, with all that is behind them.

Behind them are the encoder's last norm and what isn't the encoder's (He et al., 2022,
figure 9). All before them is frozen: it has no gradient, no update, no decay, and no state
of the optimiser. Blocks are scanned, so backward passes still go through all of them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from vit_ssl_jax.errors import UserError


def freeze(optimizer, blocks, depth):
    """The `optim.Optimizer` that trains the last `blocks` of `depth`; -1: as it is.

    Raises UserError for more blocks than there are.
    """
    if blocks == -1:
        return optimizer
    if not 0 <= blocks <= depth:
        raise UserError(
            f"config.optim.train_blocks: {blocks}, but the encoder has {depth} blocks; "
            "give 0 (none of them) to that, or -1, which trains all and the embedding, too"
        )
    tx = optimizer.tx

    def update(grads, state, params, *, step):
        cut_grads, cut_params = cut(grads, blocks), cut(params, blocks)
        updates, state = tx.update(cut_grads, state, cut_params, step=step)
        return fill(updates, params), state

    return dataclasses.replace(
        optimizer,
        tx=optax.GradientTransformationExtraArgs(
            lambda params: tx.init(cut(params, blocks)), update
        ),
        guard=functools.partial(guard, blocks=blocks),
    )


def describe(blocks, depth):
    """A line of what learns."""
    return (
        f"training: the last {blocks} of {depth} blocks and what is behind them; the rest "
        "is frozen"
    )


def kind(path):
    """Where a parameter stands: "blocks" (scanned), "before" or "behind" them."""
    names = [key.key for key in path]
    if names[:2] == ["encoder", "blocks"]:
        return "blocks"
    before = names[0] == "encoder" and names[1] != "norm"
    return "before" if before or names == ["mask_token"] else "behind"


def guard(params, blocks):
    """The same parameters; gradients of what is frozen are zero."""

    def leaf(path, x):
        if kind(path) == "behind":
            return x
        if kind(path) == "before" or not blocks:
            return jax.lax.stop_gradient(x)
        return keep_last(x, blocks)

    return jax.tree_util.tree_map_with_path(leaf, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def keep_last(x, count):
    """`x [L ...]`; no gradient reaches layers before the last `count`."""
    del count
    return x


def _keep_last_bwd(count, _, grad):
    learns = jnp.arange(len(grad)) >= len(grad) - count
    return (jnp.where(learns.reshape(-1, *(1,) * (grad.ndim - 1)), grad, 0.0),)


keep_last.defvjp(lambda x, count: (x, None), _keep_last_bwd)


def cut(tree, blocks):
    """What learns of a tree like the parameters: scanned leaves `[blocks ...]`."""

    def leaf(path, x):
        where = kind(path)
        if where == "before" or (where == "blocks" and not blocks):
            return optax.MaskedNode()
        return x[-blocks:] if where == "blocks" else x

    return jax.tree_util.tree_map_with_path(leaf, tree)


def fill(updates, params):
    """The updates of what `cut` left, and of all else the zero that changes no bit."""

    def leaf(update, param):
        if isinstance(update, optax.MaskedNode):
            return jnp.full_like(param, -0.0)
        if update.shape == param.shape:
            return update
        return jnp.full_like(param, -0.0).at[-len(update) :].set(update)

    masked = dict(is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    return jax.tree.map(leaf, updates, params, **masked)
