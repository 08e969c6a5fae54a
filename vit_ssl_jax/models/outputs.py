"""Heads over tokens: logits, pooling, scores of pairs."""

import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import initial, layers, vit
from vit_ssl_jax.models.dense import wide_einsum


def logits(classes, style, name, kernel_init=None, bias_init=nn.initializers.zeros):
    """Makes a dense layer to logits, whose float32 sums are never rounded."""
    return nn.DenseGeneral(
        classes,
        dtype=style.dtype,
        kernel_init=kernel_init or style.initial.head,
        bias_init=bias_init,
        dot_general=_to_float32,
        name=name,
    )


def _to_float32(x, kernel, *_, **__):
    """Linen's dot_general with float32 results: `[... D], [D F] -> [... F]`."""
    lead = "abc"[: x.ndim - 1]
    return wide_einsum(f"{lead}d,df->{lead}f", x, kernel)


def hidden(x, width, style, name):
    """A dense layer with GELU before a head: `[B ... F] -> [B ... width]`.

    Pinned on both sides, or small batches are exchanged for columns of the weights.
    """
    x = layers.dense(width, style, name)(partition.pin_batch(x))
    return layers.gelu(partition.pin_batch(x), style)


def pooled(tokens, how, encoder):
    """One normed vector an image, inside a compact module: `[B N(+1) D] -> [B D]`.

    The class token comes normed from the encoder; the mean of the patches gets a
    LayerNorm called `norm` here.
    """
    x = vit.pool(tokens, how, encoder.cls)
    return layers.norm(encoder.style, "norm")(x) if how == "mean" else x


class PairScores(nn.Module):
    """Scores of all ordered pairs of tokens: attention's logits without a softmax.

    RelViT (2022, section 3): `heads` pairs of query and key matrices without bias, no
    values; a head is a class, or one head a number.
    """

    heads: int
    width: int  # of a query and a key
    style: layers.Style

    @nn.compact
    def __call__(self, x):
        """Scores pairs: `[B N D] -> [B N N heads]` float32, of (query i, key j)."""
        dtype, inputs = self.style.dtype, x.shape[-1]
        shape = (self.heads, inputs, self.width)

        def project(name):
            kernel = self.param(name, initial.torch_uniform(inputs), shape)
            return jnp.einsum("bnd,rde->bnre", x.astype(dtype), kernel.astype(dtype))

        scores = wide_einsum("bire,bjre->bijr", project("query"), project("key"))
        return scores * self.width**-0.5
