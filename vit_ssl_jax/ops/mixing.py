"""Erasing, mixup and CutMix on the device, as timm's fine-tuning recipes have them.

B batch, H W C image. Images are standardised already. Random erasing: Zhong et al.
(2020); mixup: Zhang et al. (2018); CutMix: Yun et al. (2019).
"""

import functools
import math

import jax
import jax.numpy as jnp

ATTEMPTS = 10  # rectangles tried for an image; it stays whole where none fits
ERASED = (0.02, 1 / 3)  # share of the image
ASPECT = 0.3  # of the rectangle: log-uniform between this and its inverse


def erase(key, image, *, probability):
    """Puts noise where a rectangle of an image was: `[B H W C] -> [B H W C]`.

    Each image by itself with `probability`; noise is N(0, 1) for every pixel and channel
    (timm's "pixel" mode, so after standardising).
    """
    chosen_key, *box_keys, noise_key = jax.random.split(key, 6)
    b, h, w, _ = image.shape
    uniforms = [jax.random.uniform(k, (b, ATTEMPTS)) for k in box_keys[:2]]
    height, width, fits = first_rectangle(*uniforms, (h, w))
    top = jax.random.randint(box_keys[2], (b,), 0, h - height + 1)
    left = jax.random.randint(box_keys[3], (b,), 0, w - width + 1)
    chosen = fits & jax.random.bernoulli(chosen_key, probability, (b,))
    boxes = jax.vmap(functools.partial(inside, size=(h, w)))
    box = boxes(top, left, top + height, left + width)
    noise = jax.random.normal(noise_key, image.shape, image.dtype)
    return jnp.where((box & chosen[:, None, None])[..., None], noise, image)


def first_rectangle(areas, aspects, size):
    """Sides of the first attempt that fits: uniforms `[B T]` twice -> `[B]` x 3.

    An attempt aims at an area and an aspect ratio (height / width), drawn from two
    uniforms in [0, 1); it fits if it is smaller than the image in both directions.
    Returns height and width in pixels, and whether any attempt fits.
    """
    low, high = ERASED
    area = size[0] * size[1] * (low + (high - low) * areas)
    ratio = jnp.exp(math.log(ASPECT) * (1.0 - 2.0 * aspects))
    height = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    width = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (height < size[0]) & (width < size[1])
    first = jnp.argmax(fits, axis=1, keepdims=True)
    any_fits = fits.any(axis=1)
    sides = (jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (height, width))
    return *(jnp.where(any_fits, side, 0) for side in sides), any_fits


def mix(key, image, *, mixup, cutmix, probability, switch):
    """Mixes every image with its partner: `[B H W C] -> [B H W C], share [B]`.

    Image i meets image B - 1 - i (the one in the middle of an odd batch itself, so it
    stays). One draw for the whole batch, timm's "batch" mode: with `probability` it is
    mixed at all, with `switch` by CutMix where both are on. `mixup` and `cutmix` are the
    alphas of their Beta laws, 0 is off. `share` is the part of a result that is the
    image itself; with CutMix it is that of its pixels. (timm draws once a device: see
    `mix_in_groups`.)
    """
    mixed_key, switch_key, share_key, box_key = jax.random.split(key, 4)
    size = image.shape[1:3]
    cut = mixup == 0 or (cutmix > 0 and jax.random.bernoulli(switch_key, switch))
    alpha = jnp.where(cut, cutmix, mixup)
    share = jax.random.beta(share_key, alpha, alpha)
    row_key, column_key = jax.random.split(box_key)
    row = jax.random.randint(row_key, (), 0, size[0])
    column = jax.random.randint(column_key, (), 0, size[1])
    box = inside(*cut_box(share, row, column, size), size)
    own = jnp.where(cut, 1.0 - box, share)  # [H W], weight of the image itself
    own = jnp.where(jax.random.bernoulli(mixed_key, probability), own, 1.0)
    weight = own[None, :, :, None]
    image = weight * image + (1.0 - weight) * image[::-1]
    return image, jnp.broadcast_to(own.mean(), (len(image),))


def mix_in_groups(key, image, *, groups, **how):
    """Mixes groups of images, each by draws of its own: as `mix`, which has `how`.

    As many groups as divide the batch, up to `groups`: consecutive images, of which
    none meets one of another group (`partners`).
    """
    count = math.gcd(len(image), groups)
    if count == 1:
        return mix(key, image, **how)
    parts = image.reshape(count, -1, *image.shape[1:])
    one = functools.partial(mix, **how)
    parts, share = jax.vmap(one)(jax.random.split(key, count), parts)
    return parts.reshape(image.shape), share.reshape(-1)


def partners(x, groups):
    """What belongs to every image's partner: `[B] -> [B]`, reversed in every group."""
    return x.reshape(math.gcd(len(x), groups), -1)[:, ::-1].reshape(-1)


def cut_box(share, row, column, size):
    """CutMix's box about a pixel, clipped to the image: `(top, left, bottom, right)`.

    Its sides are `sqrt(1 - share)` of the image's, so unclipped it leaves `share` of
    the pixels.
    """
    sides = [(side * jnp.sqrt(1.0 - share)).astype(jnp.int32) for side in size]
    top, bottom = (
        jnp.clip(row + sign * (sides[0] // 2), 0, size[0]) for sign in (-1, 1)
    )
    left, right = (
        jnp.clip(column + sign * (sides[1] // 2), 0, size[1]) for sign in (-1, 1)
    )
    return top, left, bottom, right


def inside(top, left, bottom, right, size):
    """Whether a pixel lies in a box: four numbers -> bool `[H W]`."""
    rows, columns = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
