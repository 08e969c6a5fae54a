"""Augmentations of whole images on the device: static shapes, every image on its own.

Images are `[B H W 3]` float32 in [0, 1]. Colours are in `jitter`.
"""

import math

import jax
import jax.numpy as jnp

TRIES = 10  # boxes drawn for an image, as torchvision does
CUBIC = -0.5  # Keys' a, as Pillow has it
HALF = 128 / 255  # from here on a value is inverted


def random_resized_crop(key, image, *, size, scale, ratio, interpolation="bicubic"):
    """torchvision's RandomResizedCrop with anti-aliasing: `[B H W C] -> [B h w C]`.

    size: (h, w). scale: range of the box's area as part of the image's; ratio: of its
    width / height, whose logarithm is uniform. Of ten boxes the first that fits, else
    the largest centred one of allowed ratio.
    """
    box = draw_boxes(key, len(image), image.shape[1:3], scale=scale, ratio=ratio)
    return resize_box(image, box, size, interpolation)


def resize_box(image, box, size, interpolation):
    """Resizes a box `(top, left, height, width) [B]` of every image as Pillow does.

    Columns first, and clipped in between. `[B H W C] -> [B h w C]`.
    """
    (top, left, height, width), shape = box, image.shape[1:3]
    rows = resize_matrix(top, height, shape[0], size[0], interpolation)
    cols = resize_matrix(left, width, shape[1], size[1], interpolation)
    exact = dict(precision=jax.lax.Precision.HIGHEST)
    image = jnp.clip(jnp.einsum("brsc,bws->brwc", image, cols, **exact), 0.0, 1.0)
    return jnp.clip(jnp.einsum("bhr,brwc->bhwc", rows, image, **exact), 0.0, 1.0)


def draw_boxes(key, count, shape, *, scale, ratio):
    """Boxes within (H, W) pixels by torchvision's law: `(top, left, height, width) [B]`."""
    area_key, ratio_key, *keys = jax.random.split(key, 4)
    draw = (count, TRIES)
    part = jax.random.uniform(area_key, draw, minval=scale[0], maxval=scale[1])
    low, high = map(math.log, ratio)
    aspect = jnp.exp(jax.random.uniform(ratio_key, draw, minval=low, maxval=high))
    area = shape[0] * shape[1] * part
    width, height = (
        jnp.round(jnp.sqrt(area * aspect)),
        jnp.round(jnp.sqrt(area / aspect)),
    )
    fits = (0 < width) & (width <= shape[1]) & (0 < height) & (height <= shape[0])
    first = jnp.argmax(fits, axis=1, keepdims=True)
    height, width = (jnp.take_along_axis(x, first, 1)[:, 0] for x in (height, width))
    whole = largest_box(shape, ratio)
    found = fits.any(axis=1)
    height, width = (
        jnp.where(found, x, side).astype(jnp.int32)
        for x, side in zip((height, width), whole, strict=True)
    )
    corners = []
    for corner_key, side, length in zip(keys, shape, (height, width), strict=True):
        drawn = jax.random.randint(corner_key, (count,), 0, side - length + 1)
        corners.append(jnp.where(found, drawn, (side - length) // 2))
    return *corners, height, width


def largest_box(shape, ratio):
    """Height and width of the largest box of an allowed width / height in (H, W)."""
    height, width = shape
    if width / height < ratio[0]:
        height = round(width / ratio[0])
    elif width / height > ratio[1]:
        width = round(height * ratio[1])
    return height, width


def resize_matrix(start, length, old, new, interpolation):
    """Pillow's weights that resize `start <= x < start + length`: `[B], [B] -> [B new old]`.

    Wider as the box shrinks (anti-aliasing); none lies outside of the box.
    """
    start, length = (
        jnp.asarray(x, jnp.float32)[:, None, None] for x in (start, length)
    )
    scale = length / new
    wide = jnp.maximum(scale, 1.0)
    centre = (jnp.arange(new, dtype=jnp.float32)[None, :, None] + 0.5) * scale
    place = jnp.arange(old, dtype=jnp.float32)[None, None] - start
    kernel = dict(bilinear=triangle, bicubic=keys)[interpolation]
    weights = kernel((place + 0.5 - centre) / wide)
    weights = jnp.where((place >= 0) & (place < length), weights, 0.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def triangle(x):
    """The kernel of linear interpolation."""
    return jnp.maximum(1.0 - jnp.abs(x), 0.0)


def keys(x):
    """The kernel of cubic convolution (Keys, 1981), a = CUBIC."""
    x = jnp.abs(x)
    near = ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
    far = CUBIC * (((x - 5.0) * x + 8.0) * x - 4.0)
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def gaussian_blur(image, sigma, size):
    """torchvision's GaussianBlur: `[B H W C], [B] -> [B H W C]`.

    sigma: standard deviation of each image's blur in pixels. size: of the kernel, odd;
    at the border images are mirrored.
    """
    half = size // 2
    place = jnp.arange(-half, half + 1, dtype=jnp.float32)[None]
    weights = jnp.exp(-0.5 * (place / sigma[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        pads = [(half, half) if i == axis else (0, 0) for i in range(4)]
        padded, length = jnp.pad(image, pads, mode="reflect"), image.shape[axis]
        image = sum(
            weights[:, i, None, None, None]
            * jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
            for i in range(size)
        )
    return image


def solarize(image, threshold=HALF):
    """Inverts all values from `threshold` on: `[B H W C] -> [B H W C]`."""
    return jnp.where(image >= threshold, 1.0 - image, image)


def random_flip(key, image):
    """Mirrors images left and right with probability 1/2: `[B H W C] -> [B H W C]`."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(image), 1, 1, 1))
    return jnp.where(mirrored, image[:, :, ::-1], image)


def random_window(key, image, size):
    """Cuts out windows, every place as likely: `[B H W C] -> [B h w C]`, `(h, w) = size`."""
    room = [old - new for old, new in zip(image.shape[1:3], size, strict=True)]
    ends = jnp.tile(jnp.asarray(room)[None] + 1, (len(image), 1))
    corners = jax.random.randint(key, ends.shape, 0, ends)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (*size, image.shape[-1]))

    return jax.vmap(cut)(image, corners)
