"""Pixels on the device."""

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
