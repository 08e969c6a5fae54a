"""Pieces that kernels are made of: products, LayerNorm, GELU, dropout, on values."""

import math

import jax
import jax.numpy as jnp


def dot(a, b, axis_a=1, axis_b=0):
    """Matrix product over the given axes, summed in float32."""
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def standardize(x, eps):
    """LayerNorm without scale and bias: `[R D] -> [R D]`, and 1 / deviation `[R 1]`."""
    x = x - x.mean(axis=1, keepdims=True)
    rate = jax.lax.rsqrt((x * x).mean(axis=1, keepdims=True) + eps)
    return x * rate, rate


def standardize_backward(x, rate, grad):
    """Gradient of `standardize` from its two results: `[R D]`."""
    mean = grad.mean(axis=1, keepdims=True)
    along = (grad * x).mean(axis=1, keepdims=True)
    return (grad - mean - x * along) * rate


def gelu(x, exact):
    """GELU and its derivative, float32."""
    if exact:
        half = 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))
        density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return x * half, half + x * density
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = jnp.tanh(x * (scale + scale * cubic * square))
    half = 0.5 + 0.5 * t
    slope = (scale + 3 * scale * cubic * square) * (0.5 - 0.5 * t * t)
    return x * half, half + x * slope


def row_seeds(seeds, tokens):
    """A seed for every token from one an image: int32 `[B] -> [B tokens 1]`."""
    token = jax.lax.broadcasted_iota(jnp.int32, (1, tokens, 1), 1)
    return seeds[:, None, None] ^ (token * 0x3C6EF372)


def kept(seed, site, start, width, rate):
    """Dropout's factors of columns `start` to `start + width`: `[R width]`.

    0 with probability `rate`, else 1 / (1 - rate), by the high bits of the product of
    two hashes: of the row's `seed [R 1]` int32, and of the column and the place in the
    block (odd). So no two tiles have to agree, and the cost is a product a value.
    """
    column = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1) + start
    x = scramble(seed) * (scramble(column + site * 0x10000) | 1)
    threshold = round(rate * 2**32) - 2**31
    return jnp.where(x >= threshold, 1.0 / (1.0 - rate), 0.0)


def scramble(x):
    """A hash of int32 values in which every bit of `x` turns half of the others."""
    for shift, factor in ((16, 0x7FEB352D), (15, -0x7B935975)):
        x = (x ^ jax.lax.shift_right_logical(x, shift)) * factor
    return x ^ jax.lax.shift_right_logical(x, 16)
