"""Pixels on the device."""

import jax
import jax.numpy as jnp


def to_float(image):
    """Scales bytes to [0, 1]: uint8 `[...] -> float32 [...]`."""
    return image.astype(jnp.float32) / 255.0


def normalize(image, mean, std):
    """Standardises channels: `[... C]` in [0, 1] -> float32 `[... C]`."""
    scale = 1.0 / jnp.asarray(std, jnp.float32)
    shift = jnp.asarray(mean, jnp.float32) * scale
    expand = (1,) * (image.ndim - 1) + (-1,)
    return image * scale.reshape(expand) - shift.reshape(expand)


def denormalize(image, mean, std):
    """Inverse of `normalize`, clipped to [0, 1]."""
    expand = (1,) * (image.ndim - 1) + (-1,)
    mean, std = jnp.asarray(mean).reshape(expand), jnp.asarray(std).reshape(expand)
    return jnp.clip(image * std + mean, 0.0, 1.0)


def crop_resize(image, top, left, height, width, size):
    """Cuts a box out of every image and resizes it: `[B H W C] -> [B h w C]`.

    `top`, `left`, `height`, `width` `[B]` are in pixels, integer or not; `(h, w) =
    size`. Bilinear with half-pixel centres, clamped inside the box, no anti-aliasing:
    torch's `interpolate(align_corners=False)` of the box.
    """
    rows = resize_matrix(top, height, image.shape[1], size[0])
    cols = resize_matrix(left, width, image.shape[2], size[1])
    return resample(image, rows, cols)


def resample(image, rows, cols):
    """Weighted sums of pixels: `[B R S C], [B H R], [B W S] -> [B H W C]` float32."""
    return jnp.einsum(
        "bhr,brsc,bws->bhwc", rows, image, cols, precision=jax.lax.Precision.HIGHEST
    )


def resize_matrix(start, length, old, new):
    """Weights that resize `start <= x < start + length`: `[B], [B] -> [B new old]`."""
    start, length = (jnp.asarray(x, jnp.float32)[:, None] for x in (start, length))
    centre = (jnp.arange(new, dtype=jnp.float32)[None] + 0.5) * length / new - 0.5
    centre = start + jnp.clip(centre, 0.0, length - 1.0)  # [B new]
    pixels = jnp.arange(old, dtype=jnp.float32)
    return jnp.maximum(1.0 - jnp.abs(centre[..., None] - pixels[None, None]), 0.0)
