"""Colour jitter on the device, every image on its own: torchvision's tensor operations.

Images are `[M H W 3]`, factors `[M]`. All but hue end with a clamp to [0, 1], as
theirs do; on standardised pixels that takes away whatever is negative (the published
RelViT does just that).
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import images

ZOOM = 1.15  # a patch is cropped to round(P / ZOOM) before it is resized back
COLOURS = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
JITTERED, GREYED = 0.8, 0.2  # probabilities
GREY = np.array([0.2989, 0.587, 0.114], np.float32)  # ITU-R 601-2, as torchvision


def greyscale(image):
    """Luma: `[M H W 3] -> [M H W 1]`."""
    return jnp.sum(image * GREY.reshape(1, 1, 1, 3), axis=-1, keepdims=True)


def adjust_brightness(image, factor):
    """Scales: `[M H W 3], [M] -> [M H W 3]`."""
    return jnp.clip(_expand(factor) * image, 0.0, 1.0)


def adjust_contrast(image, factor):
    """Moves away from the mean of the luma: `[M H W 3], [M] -> [M H W 3]`."""
    return _blend(image, greyscale(image).mean(axis=(1, 2), keepdims=True), factor)


def adjust_saturation(image, factor):
    """Moves every pixel away from its luma: `[M H W 3], [M] -> [M H W 3]`."""
    return _blend(image, greyscale(image), factor)


def adjust_hue(image, shift):
    """Turns the hue by `shift [M]` of a circle: `[M H W 3] -> [M H W 3]`.

    By way of HSV: the largest and the smallest channel stay what they are. As in
    torchvision only the others are clamped to [0, 1], not the largest.
    """
    value = image.max(axis=-1)
    spread = value - image.min(axis=-1)
    divisor = jnp.where(spread == 0, 1.0, spread)
    red, green, blue = ((value - image[..., i]) / divisor for i in range(3))
    hue = jnp.where(image[..., 1] == value, 2.0 + red - blue, 4.0 + green - red)
    hue = jnp.where(image[..., 0] == value, blue - green, hue)  # sixths of a circle
    hue = hue + 6.0 * _expand(shift)[..., 0]

    def channel(offset):
        x = jnp.mod(offset + hue, 6.0)
        depth = jnp.clip(jnp.minimum(x, 4.0 - x), 0.0, 1.0)
        mixed = jnp.clip(value - spread * depth, 0.0, 1.0)
        return jnp.where(depth == 0, value, mixed)

    return jnp.stack([channel(offset) for offset in (5.0, 3.0, 1.0)], axis=-1)


def jitter(key, image, *, brightness, contrast, saturation, hue):
    """torchvision's ColorJitter with its random order: `[M H W 3] -> [M H W 3]`.

    Factors are uniform in `[max(0, 1 - x), 1 + x]`, the hue's shift in `[-hue, hue]`
    (a circle is 1); factors and order are drawn for every image.
    """
    order_key, *keys = jax.random.split(key, 5)
    count = len(image)
    functions = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]
    ranges = [(max(0.0, 1.0 - x), 1.0 + x) for x in (brightness, contrast, saturation)]
    ranges.append((-hue, hue))
    factors = [
        jax.random.uniform(k, (count,), minval=low, maxval=high)
        for k, (low, high) in zip(keys, ranges)
    ]
    order = jnp.argsort(jax.random.uniform(order_key, (count, 4)), axis=1)
    for turn in range(4):
        changed = [f(image, x) for f, x in zip(functions, factors)]
        chosen = [_expand(order[:, turn]) == i for i in range(4)]
        image = jnp.select(chosen, changed)
    return image


def sometimes(key, probability, changed, image):
    """Takes each image of `changed` with a probability: `[M ...], [M ...] -> [M ...]`."""
    take = jax.random.bernoulli(key, probability, (len(image),))
    return jnp.where(take.reshape(-1, *[1] * (image.ndim - 1)), changed, image)


def augment_patches(key, cells):
    """RelViT's augmentation of every patch on its own: `[M P P 3] -> [M P P 3]`.

    Random crop and resize back, which takes away that neighbours continue each other's
    edges; colour jitter; grey.
    """
    top_key, left_key, *keys = jax.random.split(key, 5)
    count, patch = len(cells), cells.shape[1]
    side = round(patch / ZOOM)
    top, left = (
        jax.random.randint(k, (count,), 0, patch - side + 1)
        for k in (top_key, left_key)
    )
    sides = jnp.full((count,), side)
    cells = images.crop_resize(cells, top, left, sides, sides, (patch, patch))
    jittered = jitter(keys[0], cells, **COLOURS)
    cells = sometimes(keys[1], JITTERED, jittered, cells)
    grey = jnp.broadcast_to(greyscale(cells), cells.shape)
    return sometimes(keys[2], GREYED, grey, cells)


def _blend(image, other, factor):
    factor = _expand(factor)
    return jnp.clip(factor * image + (1.0 - factor) * other, 0.0, 1.0)


def _expand(factor):
    """Adds the axes of an image: `[M] -> [M 1 1 1]`."""
    return factor[:, None, None, None]
