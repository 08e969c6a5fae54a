"""Dense layers and GELU; on a CPU in bfloat16 with a gradient of their own.

B batch, N tokens, C contracted axes, F features; C and F may be several axes.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vit_ssl_jax.models import device

KEPT = "kept"  # name of what `keep` keeps for the backward pass
POLICY = jax.checkpoint_policies.save_only_these_names(KEPT)


def is_low(dtype):
    """Whether matmuls are in bfloat16 on a CPU, where XLA needs help with them.

    XLA for CPU has fast matmuls of bfloat16 with float32 results alone; those with
    bfloat16 results, which jax's own gradient asks for, it does in float32, and sums of
    bfloat16 it does slowly. Where the backward loop of a scan reads an array of
    bfloat16, it converts the stack of all layers to float32 beforehand.
    """
    return jnp.dtype(dtype) == jnp.bfloat16 and device.platform() == "cpu"


class Dense(nn.Module):
    """Dense layer `[B N C] -> [B N F]` in `dtype`; `kernel [C F]`, `bias [F]` float32.

    They are drawn as if C and F were single axes. `apart`: along the first of F, a tuple
    of arrays, each of a product of its own where that is at least as fast. `biased`:
    which entries of that axis have a bias; (): all.
    """

    features: tuple
    axes: int  # how many C are
    dtype: str
    kernel_init: Callable
    bias_init: Callable
    apart: bool = False
    biased: tuple = ()

    @nn.compact
    def __call__(self, x):
        def flat(key, shape):
            inner, outer = shape[: self.axes], shape[self.axes :]
            drawn = self.kernel_init(key, (math.prod(inner), math.prod(outer)))
            return drawn.reshape(shape)

        shape = (*x.shape[-self.axes :], *self.features)
        kernel = self.param("kernel", flat, shape)
        bias = self.param("bias", self.bias_init, self.features)
        if not all(self.biased):
            has = jnp.array(self.biased).reshape(-1, *[1] * (bias.ndim - 1))
            bias = jnp.where(has, bias, 0)
        if is_low(self.dtype):
            out = keep(affine(x, kernel, bias))
            first = out.ndim - len(self.features)
            return tuple(jnp.moveaxis(out, first, 0)) if self.apart else out
        x, kernel, bias = (v.astype(self.dtype) for v in (x, kernel, bias))

        if self.apart:
            kernels = jnp.moveaxis(kernel, self.axes, 0)
            pairs = zip(kernels, bias, strict=True)
            return tuple(product(x, *pair, self.axes) for pair in pairs)
        return product(x, kernel, bias, self.axes)


def product(x, kernel, bias, axes):
    """Product and bias: `[B N C], [C F], [F] -> [B N F]`; `axes`: how many C are."""
    out = jnp.tensordot(x, kernel, axes)
    return out + jnp.broadcast_to(bias, out.shape)


def gelu(x, style):
    """GELU, computed in float32; for the way back it keeps `x` alone."""

    def activate(x):
        wide = x.astype(jnp.float32)
        if style.gelu == "tanh" or x.dtype == jnp.float32:
            return nn.gelu(wide, approximate=style.gelu == "tanh")
        # torch's form, exact enough before rounding, and twice as fast as flax's on CPU
        return 0.5 * wide * (1.0 + jax.lax.erf(wide * math.sqrt(0.5)))

    return jax.checkpoint(activate, prevent_cse=False)(x).astype(x.dtype)


@jax.custom_vjp
def affine(x, kernel, bias):
    """Product and bias `[B N C], [C F], [F] -> [B N F]` in bfloat16, sums in float32.

    The gradients of `kernel` and `bias` are not rounded.
    """
    lead = x.shape[: x.ndim + bias.ndim - kernel.ndim]  # B N
    out = _product(x.reshape(*lead, -1), kernel.reshape(-1, bias.size), 1)
    out = out.reshape(*lead, *bias.shape)
    return (out + jnp.broadcast_to(bias, out.shape)).astype(jnp.bfloat16)


def _forward(x, kernel, bias):
    return affine(x, kernel, bias), (x, kernel, bias)


def _backward(saved, grad):
    x, kernel, bias = saved
    rows = tuple(range(grad.ndim - bias.ndim))  # B N
    flat = grad.reshape(*grad.shape[: len(rows)], bias.size)
    weights = kernel.reshape(-1, bias.size)
    d_x = _product(flat, weights, (-1, -1)).reshape(x.shape).astype(x.dtype)
    d_kernel = _weight_gradient(x.reshape(*flat.shape[:-1], -1), flat, rows)
    d_bias = jnp.sum(flat, axis=rows, dtype=jnp.float32)
    return d_x, d_kernel.reshape(kernel.shape), d_bias.reshape(bias.shape)


def _weight_gradient(x, grad, rows):
    """Gradient of a kernel: `[B N C], [B N F] -> [C F]`.

    XLA transposes the first factor of such a product, so that is the smaller one. The
    barrier keeps it from exchanging them.
    """
    if x.size <= grad.size:
        return _product(x, grad, (rows, rows))
    return jax.lax.optimization_barrier(_product(grad, x, (rows, rows))).T


affine.defvjp(_forward, _backward)


def _product(a, b, axes):
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jnp.tensordot(a, b, axes, preferred_element_type=jnp.float32)


@jax.custom_jvp
def keep(x):
    """Returns `x`, in bfloat16, kept for the backward pass where `POLICY` holds.

    As integers its bits are left alone on the way there.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint16)
    return jax.lax.bitcast_convert_type(checkpoint_name(bits, KEPT), x.dtype)


@keep.defjvp
def _keep_tangent(primals, tangents):
    return keep.fun(*primals), *tangents  # not `keep`: POLICY doesn't look inside


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def wide_einsum(axes, a, b):
    """Does `jnp.einsum` of two arrays of one dtype with float32 results, not rounded.

    Its gradients are matmuls of that dtype, too: what jax derives is a float32 matmul on
    GPUs. Every axis is in two of the three.
    """
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _wide_forward(axes, a, b):
    return wide_einsum(axes, a, b), (a, b)


def _wide_backward(axes, saved, grad):
    (a, b), (inputs, out) = saved, axes.split("->")
    left, right = inputs.split(",")
    grad = grad.astype(a.dtype)
    d_a = wide_einsum(f"{out},{right}->{left}", grad, b)
    d_b = wide_einsum(f"{left},{out}->{right}", a, grad)
    return d_a.astype(a.dtype), d_b.astype(b.dtype)


wide_einsum.defvjp(_wide_forward, _wide_backward)
