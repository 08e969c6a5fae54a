"""Attention by the fastest way that the device at hand has.

On CPUs by matmuls of whole heads, on TPUs (outside the fused blocks) as jax writes it, on
NVIDIA GPUs by cuDNN's flash attention, which keeps no scores. That takes an even number
of tokens, of which the first are valid: `arrange` makes them so, once for all blocks.

B batch, N tokens, D width, A heads, E head width.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import device

WIDEST = 128  # E at most: of Ampere and later cards, under a gradient
OLDEST = (8, 0)  # compute capability: Ampere
EVEN = 8  # an odd number of tokens is filled up to a multiple of this


def attend(qkv, valid=None):
    """Softmax attention: `[B N 3 A E] -> [B N A E]`, the softmax in float32.

    `valid`: bool `[B N]`, or int32 `[B]`, so many of an image's first tokens; the others
    are never attended to.
    """
    valid = as_mask(valid, qkv.shape[1])
    if device.platform() == "cpu":
        return by_heads(qkv, valid)
    mask = None if valid is None else valid[:, None, None, :]
    return jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), mask=mask)


def by_cudnn(q, k, v, lengths, implementation="cudnn"):
    """Attention of three `[B N A E]` by cuDNN, where `choose_flash` says so.

    N is even; attended to are the first `lengths [B]` tokens of an image (None: all).
    """
    return jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=lengths, implementation=implementation
    )


def as_mask(valid, tokens):
    """Makes `attend`'s `valid` bool `[B N]`, or None."""
    if valid is None or valid.ndim == 2:
        return valid
    return jnp.arange(tokens)[None] < valid[:, None]


def with_class_token(valid):
    """Extends `attend`'s `valid` by a class token in front, which is valid."""
    if valid is None:
        return None
    if valid.ndim == 1:
        return valid + 1
    return jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)


def choose_flash(blocks, shape):
    """Whether the attention of `stack.Blocks` on `[B N D]` is cuDNN's.

    Raises UserError where it can't be on a GPU and `config.vit.kernels` is "fused".
    """
    kernels = blocks.style.kernels
    if device.platform() != "gpu" or kernels == "plain":
        return False
    reason = find_flash(shape[-1] // blocks.heads, blocks.style.dtype)
    if reason and kernels == "fused":
        raise UserError(
            f"config.vit.kernels: 'fused' can't be: {reason}; --config.vit.kernels=auto "
            "takes plain attention there"
        )
    return not reason


def find_flash(head, dtype):
    """Says why cuDNN's flash attention doesn't take heads of a width; "": it does.

    These are the conditions of jax's `fused_attention_stablehlo.py`, and cuDNN's own of
    the card.
    """
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"flash attention needs bfloat16, not {dtype} (config.vit.dtype)"
    if head % 8 or head > WIDEST:
        return (
            f"heads of {head} values aren't a multiple of 8 up to {WIDEST} "
            "(config.vit.variant)"
        )
    capability = device.capability()
    if capability < OLDEST:
        return (
            "flash attention needs a card of compute capability 8.0 (Ampere) or newer, "
            f"not {'.'.join(map(str, capability))}"
        )
    return ""


def arrange(x, valid):
    """Tokens as flash attention takes them: valid ones first, an even number of them.

    `[B N D]` and `valid` as in `attend` to `(x [B N' D], lengths [B] or None, restore)`.
    `restore` undoes it for any `[B N' F]`. An odd N is filled up with zeros; only a
    mask `[B N]` moves tokens.
    """
    batch, tokens = x.shape[:2]
    filled = tokens if tokens % 2 == 0 else -(-tokens // EVEN) * EVEN
    extra = filled - tokens
    x = jnp.pad(x, ((0, 0), (0, extra), (0, 0))) if extra else x
    if valid is None and not extra:
        return x, None, lambda y: y
    if valid is None:
        valid = jnp.full(batch, tokens, jnp.int32)
    if valid.ndim == 1:
        return x, valid.astype(jnp.int32), lambda y: y[:, :tokens]
    order = jnp.argsort(~jnp.pad(valid, ((0, 0), (0, extra))), axis=1, stable=True)
    back = jnp.argsort(order, axis=1)
    lengths = valid.sum(axis=1, dtype=jnp.int32)
    return (
        permute(x, order, back),
        lengths,
        lambda y: permute(y, back, order)[:, :tokens],
    )


@jax.custom_vjp
def permute(x, order, back):
    """Permutes tokens `[B N D]`: `x[b, order[b, n]]`; `back` is `order`'s inverse.

    Its gradient is a permutation, too, not a sum into places.
    """
    del back
    return jnp.take_along_axis(x, order[:, :, None], axis=1)


def _permute_forward(x, order, back):
    return permute(x, order, back), (order, back)


def _permute_backward(saved, grad):
    order, back = saved
    return permute(grad, back, order), None, None


permute.defvjp(_permute_forward, _permute_backward)


@jax.custom_vjp
def by_heads(qkv, valid):
    """Attends by matmuls of whole heads `[B A N E]`, with float32 results.

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
    """Transposes to `[B A M N]`, not merged into a product, which would be slower."""
    return jax.lax.optimization_barrier(jnp.swapaxes(scores, 2, 3))


def _product(axes, a, b):
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)
