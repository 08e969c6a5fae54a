"""Tiles: cut an image into cells, tiles out of the cells, and hide what would betray them.

B batch, T tiles, n cells a side, h w sides in pixels, C channels (RGB).
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import images, jitter

GREEN_MAGENTA = (-1.0, 2.0, -1.0)
COARSEST = 10  # pixels a side: 100 in all (Doersch et al., 2015, section 3.1)


def cut_cells(image, n):
    """Cuts into n x n cells in raster order: `[B H W C] -> [B n*n H//n W//n C]`.

    What n doesn't divide is left over on the right and at the bottom.
    """
    b, height, width, c = image.shape
    h, w = height // n, width // n
    x = image[:, : n * h, : n * w].reshape(b, n, h, n, w, c)
    return x.swapaxes(2, 3).reshape(b, n * n, h, w, c)


def join_cells(cells, n):
    """Inverse of `cut_cells`: `[B n*n h w C] -> [B n*h n*w C]`."""
    b, _, h, w, c = cells.shape
    x = cells.reshape(b, n, n, h, w, c).swapaxes(2, 3)
    return x.reshape(b, n * h, n * w, c)


def take_tiles(tiles, ids):
    """Selects tiles: `[B T h w C], [B K] -> [B K h w C]`."""
    return jnp.take_along_axis(tiles, ids[..., None, None, None], axis=1)


def place_tiles(tiles, scores):
    """Puts tiles where they score highest: `[B T ...], [B T P] -> [B P ...]`.

    Of several at one place the one with the highest probability (softmax over places)
    is taken; a place that none is put at is zero.
    """
    scores = jax.nn.log_softmax(scores, axis=-1)
    best = jax.nn.one_hot(scores.argmax(-1), scores.shape[-1], dtype=bool)
    winner = jnp.where(best, scores, -jnp.inf).argmax(1)  # [B P]
    expand = (...,) + (None,) * (tiles.ndim - 2)
    placed = jnp.take_along_axis(tiles, winner[expand], axis=1)
    return jnp.where(best.any(1)[expand], placed, 0.0)


def cut_tiles(cells, offset, side):
    """Cuts a square tile out of every cell: `[B T h w C], [B T 2] -> [B T side side C]`.

    `offset` is the tile's top and left in its cell, int32 pixels.
    """

    def cut(cell, corner):
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(cell, start, (side, side, cell.shape[-1]))

    return jax.vmap(jax.vmap(cut))(cells, offset)


def enlarge_tiles(cells, offset, side):
    """Cuts a square tile and resizes it to its cell: `[B T h w C] -> [B T h w C]`.

    `offset [B T C 2]` is the top and left of every channel. Bilinear, and clamped
    inside the tile: no pixel outside of it counts.
    """
    b, t, h, w, c = cells.shape
    flat = jnp.moveaxis(cells, -1, 2).reshape(b * t * c, h, w, 1)
    top, left = offset.reshape(b * t * c, 2).T
    length = jnp.full_like(top, side)
    out = images.crop_resize(flat, top, left, length, length, (h, w))
    return jnp.moveaxis(out.reshape(b, t, c, h, w), 2, -1)


def spread_channels(key, offset, largest, furthest):
    """Moves every channel of a tile by itself: `[B T 2] -> [B T 3 2]` int32.

    By a whole number of pixels from `-furthest` to `furthest` in either direction, kept
    within 0 and `largest`: colour fringes don't tell a tile's place any more.
    """
    shape = (*offset.shape[:2], 3, 2)
    moved = jax.random.randint(key, shape, -furthest, furthest + 1)
    return jnp.clip(offset[:, :, None] + moved, 0, largest)


def coarsen(key, tiles, share):
    """Shrinks a `share` of all tiles and enlarges them again: `[B T h h C]` to the same.

    Each to a random side of COARSEST pixels or more, linearly and without aliasing, so
    that no tile's sharpness tells what it was (Doersch et al., 2015, section 3.1).
    """
    b, t, side = tiles.shape[:3]
    if side <= COARSEST:
        return tiles
    sides = range(COARSEST, side)
    blurs = np.stack([_triangles(n, side) @ _triangles(side, n) for n in sides])
    blurs = jnp.asarray(blurs, jnp.float32)  # [S h h]
    which_key, side_key = jax.random.split(key)
    x = tiles.reshape(b * t, *tiles.shape[2:])
    blur = blurs[jax.random.randint(side_key, (b * t,), 0, len(blurs))]
    small = jnp.einsum("mij,mjkc,mlk->milc", blur, x, blur, precision="highest")
    return jitter.sometimes(which_key, share, small, x).reshape(tiles.shape)


def _triangles(old, new):
    """Pillow's linear weights from `old` pixels to `new`: float64 `[new old]`."""
    scale = old / new
    centre = (np.arange(new)[:, None] + 0.5) * scale
    far = np.abs(np.arange(old)[None] + 0.5 - centre) / max(scale, 1.0)
    weights = np.maximum(1.0 - far, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def shift_colours(key, tiles, low, high):
    """Adds an integer / 255 to every channel of every tile: `[B T h w C]` in [0, 1].

    Each is uniform in `low <= i <= high`; the result is clipped to [0, 1].
    """
    b, t, _, _, c = tiles.shape
    shift = jax.random.randint(key, (b, t, 1, 1, c), low, high + 1)
    return jnp.clip(tiles + shift / 255.0, 0.0, 1.0)


def project_colours(image):
    """Projects green against magenta out of every pixel: `[... C] -> [... C]`.

    `I - a^T a / (a a^T)` with a = (-1, 2, -1): chromatic aberration shifts green
    against red and blue (Doersch et al., 2015, section 3.1).
    """
    a = jnp.asarray(GREEN_MAGENTA).reshape((1,) * (image.ndim - 1) + (3,))
    along = jnp.sum(image * a, axis=-1, keepdims=True)
    return image - along * a / jnp.square(a).sum()


def drop_colours(key, tiles):
    """Keeps one random channel of every tile: `[B T h w C]`, centred, to the same.

    The others become Gaussian noise around 0 with a hundredth of its standard deviation
    (Doersch et al., 2015, section 3.1).
    """
    channel_key, noise_key = jax.random.split(key)
    b, t, _, _, c = tiles.shape
    channel = jax.random.randint(channel_key, (b, t, 1, 1, 1), 0, c)
    keep = channel == jnp.arange(c).reshape(1, 1, 1, 1, c)
    std = tiles.std(axis=(2, 3), keepdims=True)
    std = jnp.sum(jnp.where(keep, std, 0.0), axis=-1, keepdims=True)
    noise = jax.random.normal(noise_key, tiles.shape) * std / 100.0
    return jnp.where(keep, tiles, noise)


def centre(tiles):
    """Subtracts every tile's mean colour: `[B T h w C] -> [B T h w C]`."""
    return tiles - tiles.mean(axis=(2, 3), keepdims=True)


def standardise(tiles, *, channels):
    """Gives every tile mean 0 and deviation 1 (n - 1): `[B T h w C] -> [B T h w C]`.

    Over pixels and channels together, or over pixels with `channels` one by one. A
    plain tile, whose deviation is that of rounding, is only centred.
    """
    axis = (2, 3) if channels else (2, 3, 4)
    std = tiles.std(axis=axis, ddof=1, keepdims=True)
    # One pixel in 256 x 256 that is one in 255 off still has more.
    std = jnp.where(std > 1e-5, std, 1.0)
    return (tiles - tiles.mean(axis=axis, keepdims=True)) / std
