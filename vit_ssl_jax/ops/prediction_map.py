"""I-JEPA's task as pictures: context, targets, and how well every target is predicted.

B images, T target blocks of M tokens, E context blocks, D numbers a feature.
"""

import jax.numpy as jnp

from vit_ssl_jax.ops import heatmap, patches

MAP = "cosine of prediction and true target, both less the mean (dark: 0, yellow: 1)"


def show(image, outputs, targets, views, *, grid, patch):
    """Rows of pictures `[B H W 3]` in [0, 1], by name.

    image: `[B H W 3]` in [0, 1]; outputs, targets and views as in `methods/ijepa.py`. The
    map has the cosines of `agreement`, their mean where targets overlap; below 0 is as 0.
    """
    tokens = grid[0] * grid[1]
    context, target = (
        count(views[name], views[f"{name}_valid"], tokens)
        for name in ("context", "target")
    )
    valid = targets["target_valid"]
    cosines = agreement(outputs, targets["features"], valid)
    summed = count(views["target"], jnp.where(valid, cosines, 0.0), tokens)
    values = summed / jnp.maximum(target, 1)
    return {
        "context": patches.darken(image, context > 0, patch, grid),
        "targets": patches.darken(image, target > 0, patch, grid),
        MAP: heatmap.over(image, values, target > 0, grid, patch),
    }


def count(ids, values, tokens):
    """Sums of values by token: `[B ...], [B ...] -> [B N]` float32."""
    b = len(ids)
    ids, values = ids.reshape(b, -1), values.reshape(b, -1)
    zeros = jnp.zeros((b, tokens), jnp.float32)
    return zeros.at[jnp.arange(b)[:, None], ids].add(values.astype(jnp.float32))


def agreement(said, true, valid):
    """Cosines of predicted and true features, both less the mean target: `[B T M]`.

    said: `[B T E M D]`; true: `[B T M D]`; valid: `[B T M]`, whose mean it is. 1 is a right
    prediction, 0 one that has nothing but that mean, which is all there is to say of
    features that collapsed. Mean over contexts.
    """
    wide = valid[..., None]
    total = jnp.where(wide, true, 0.0).sum((0, 1, 2), keepdims=True)
    mean = total / jnp.maximum(valid.sum(), 1)
    said, true = said - mean[:, :, None], (true - mean)[:, :, None]
    norms = jnp.linalg.norm(said, axis=-1) * jnp.linalg.norm(true, axis=-1)
    return ((said * true).sum(-1) / jnp.maximum(norms, 1e-12)).mean(2)
