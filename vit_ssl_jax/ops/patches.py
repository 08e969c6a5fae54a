"""Images to patch vectors and back; gathering of tokens."""

import jax.numpy as jnp


def patchify(image, patch):
    """Cuts into patches: `[B H W C] -> [B N P*P*C]`.

    Tokens are in raster order; inside a patch the order is (row, column, channel),
    channel fastest (MAE, section 3).
    """
    b, height, width, c = image.shape
    rows, cols = height // patch, width // patch
    x = image.reshape(b, rows, patch, cols, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * cols, patch * patch * c)


def unpatchify(patches, patch, grid):
    """Inverse of `patchify`: `[B N P*P*C], (rows, cols) -> [B H W C]`."""
    b, _, features = patches.shape
    rows, cols = grid
    c = features // (patch * patch)
    x = patches.reshape(b, rows, cols, patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * patch, cols * patch, c)


def darken(image, seen, patch, grid):
    """Leaves a fifth of the light to patches that aren't `seen [B N]`: `[B H W C]`."""
    light = jnp.where(seen[..., None], 1.0, 0.2)
    return unpatchify(light * patchify(image, patch), patch, grid)


def take(tokens, ids):
    """Selects tokens: `[B N D], [B K] -> [B K D]`."""
    return jnp.take_along_axis(tokens, ids[..., None], axis=1)
