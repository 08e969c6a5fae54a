"""Numbers as colours: maps of patches and tables, for pictures.

B batch, H W image, N patches of `patch` pixels on a `grid` of (rows, columns).
"""

import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import patches

# Five colours of matplotlib's viridis (CC0), from dark violet by green to yellow: as light
# as the number is large, also in grey and to the colour-blind.
SCALE = np.float32(
    [
        [0.267, 0.005, 0.329],
        [0.230, 0.322, 0.546],
        [0.128, 0.567, 0.551],
        [0.369, 0.789, 0.383],
        [0.993, 0.906, 0.144],
    ]
)


def colours(values):
    """Colours of numbers, clipped to [0, 1]: `[...] -> [... 3]`."""
    steps = len(SCALE) - 1
    place = jnp.clip(values, 0.0, 1.0) * steps
    low = jnp.minimum(place.astype(jnp.int32), steps - 1)
    scale, share = jnp.asarray(SCALE), (place - low)[..., None]
    return (1.0 - share) * scale[low] + share * scale[low + 1]


def of_patches(values, grid, patch):
    """A map with a colour for every patch: `[B N]` in [0, 1] -> `[B H W 3]`."""
    cells = jnp.tile(colours(values), (1, 1, patch * patch))
    return patches.unpatchify(cells, patch, grid)


def over(image, values, shown, grid, patch):
    """Colours of the patches that are `shown [B N]`, the others dark: `[B H W 3]`.

    image: `[B H W 3]` in [0, 1]; values: `[B N]` in [0, 1].
    """
    cells = jnp.tile(shown[..., None], (1, 1, 3 * patch * patch))
    inside = patches.unpatchify(cells, patch, grid)
    dark = patches.darken(image, shown, patch, grid)
    return jnp.where(inside, of_patches(values, grid, patch), dark)


def table(values, size):
    """A table as a picture, a colour a cell: `[B R C]` in [0, 1] -> `[B H W 3]`.

    `size` is (H, W) pixels.
    """
    rows, cols = (np.arange(n) * k // n for n, k in zip(size, values.shape[1:]))
    return colours(values)[:, rows][:, :, cols]


def stretch(values):
    """Each image's least number to 0 and its greatest to 1: `[B N] -> [B N]`.

    Zeros where all are alike.
    """
    low, high = (f(values, axis=1, keepdims=True) for f in (jnp.min, jnp.max))
    return (values - low) / jnp.where(high > low, high - low, 1.0)
