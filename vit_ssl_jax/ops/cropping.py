"""Crops and flips of training images on the device, as `data.augment` makes them on a host.

The laws and the pixels are the same, within a rounding; the draws are others.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.ops import images, views


def make_augmentation(
    shape, *, size, crop, ratio, flip, interpolation, resize, pad, train_resize, squash
):
    """Makes the function (key, uint8 `[B *shape 3]`) -> uint8 `[B H W 3]`, `(H, W) = size`.

    shape: (h, w) of the images. The others are those of `data.augment`.
    """
    covering = dict(size=size, squash=squash)
    if crop:

        def place(key, image):
            how = dict(size=size, scale=crop, ratio=ratio, interpolation=interpolation)
            return to_bytes(
                views.random_resized_crop(key, images.to_float(image), **how)
            )

    else:
        resized = cover(shape, resize=train_resize or resize, **covering)

        def place(key, image):
            if resized != shape:
                image = resize_whole(image, resized, interpolation)
            if train_resize:
                return views.random_window(key, image, size)
            image = cut_centre(image, size)
            around = [(0, 0), (pad, pad), (pad, pad), (0, 0)]
            return views.random_window(key, jnp.pad(image, around), size)

    def augment(key, image):
        place_key, flip_key = jax.random.split(key)
        image = place(place_key, image)
        return views.random_flip(flip_key, image) if flip else image

    return augment


def cover(shape, *, size, resize, squash):
    """(height, width) of an image that a window of `size` is cut of, see `data.crops`."""
    if squash:
        return tuple(max(resize, side) for side in size)
    num, den = resize, min(shape)
    for side, wanted in zip(shape, size, strict=True):
        if side * num < wanted * den:
            num, den = wanted, side
    return tuple(side * num // den for side in shape)


def resize_whole(image, shape, interpolation):
    """Resizes images as Pillow does: uint8 `[B h w C] -> [B *shape C]`."""
    zeros = jnp.zeros(len(image), jnp.int32)
    box = zeros, zeros, zeros + image.shape[1], zeros + image.shape[2]
    resized = views.resize_box(images.to_float(image), box, shape, interpolation)
    return to_bytes(resized)


def cut_centre(image, size):
    """Cuts out the centre: `[B H W C] -> [B h w C]`, `(h, w) = size`."""
    top, left = (round((a - b) / 2) for a, b in zip(image.shape[1:3], size))
    return image[:, top : top + size[0], left : left + size[1]]


def to_bytes(image):
    """Rounds `[0, 1]` to bytes: float32 `[...] -> uint8 [...]`."""
    return jnp.round(image * 255.0).astype(jnp.uint8)
