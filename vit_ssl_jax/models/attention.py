"""Attention by the fastest way that the device at hand has.

B batch, N tokens, A heads, E head width.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.models import device


def attend(qkv, valid=None):
    """Softmax attention: `[B N 3 A E] -> [B N A E]`, the softmax in float32.

    Tokens where `valid [B N]` is False are never attended to.
    """
    platform = device.platform()
    if platform == "cpu":
        return by_heads(qkv, valid)
    flash = platform == "gpu" and suits_flash(qkv, valid)
    return jax.nn.dot_product_attention(
        *jnp.moveaxis(qkv, 2, 0),
        mask=None if valid is None else valid[:, None, None, :],
        implementation="cudnn" if flash else "xla",
    )


def suits_flash(qkv, valid):
    """Whether cuDNN's flash attention takes `[B N 3 A E]`, forwards and backwards.

    These are the conditions of jax's `fused_attention_stablehlo.py` for GPUs since
    Ampere. A mask is given to cuDNN as a bias, which needs an even number of tokens.
    """
    low = qkv.dtype in (jnp.bfloat16, jnp.float16)
    fits = qkv.shape[-1] % 8 == 0 and qkv.shape[-1] <= 128
    return low and fits and (valid is None or qkv.shape[1] % 2 == 0)


@jax.custom_vjp
def by_heads(qkv, valid):
    """The same by matmuls of whole heads `[B A N E]`, with float32 results.

    For CPUs: the gradient that jax derives adds up three padded arrays and asks for
    results in bfloat16, which XLA for CPU is slow at.
    """
    return _forward(qkv, valid)[0]


def _forward(qkv, valid):
    q, k, v = jnp.transpose(qkv, (2, 0, 3, 1, 4))  # each [B A N E]
    scores = _product("bane,bame->banm", q, k) * q.shape[-1] ** -0.5
    if valid is not None:
        scores = jnp.where(valid[:, None, None], scores, jnp.finfo(jnp.float32).min)
    shares = jax.nn.softmax(scores).astype(q.dtype)
    out = _product("banm,bame->bane", shares, v).astype(q.dtype)
    return jnp.swapaxes(out, 1, 2), (q, k, v, shares)


def _backward(saved, grad):
    q, k, v, shares = saved
    grad = jnp.swapaxes(grad, 1, 2)
    d_shares = _product("bane,bame->banm", grad, v)
    p = shares.astype(jnp.float32)
    d_scores = p * (d_shares - jnp.sum(p * d_shares, axis=-1, keepdims=True))
    d_scores = (d_scores * q.shape[-1] ** -0.5).astype(q.dtype)
    d_q = _product("banm,bame->bane", d_scores, k)
    d_k = _product("bamn,bane->bame", _transpose(d_scores), q)
    d_v = _product("bamn,bane->bame", _transpose(shares), grad)
    d_qkv = jnp.stack([d_q, d_k, d_v]).astype(q.dtype)
    return jnp.transpose(d_qkv, (1, 3, 0, 2, 4)), None


by_heads.defvjp(_forward, _backward)


def _transpose(scores):
    """`[B A N M] -> [B A M N]`, not merged into a product, where it would be slower."""
    return jax.lax.optimization_barrier(jnp.swapaxes(scores, 2, 3))


def _product(axes, a, b):
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)
