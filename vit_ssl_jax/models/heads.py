"""Heads over tokens."""

import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax.models import layers


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
        """`[B N D] -> [B N N heads]` float32; entry (i, j) has i as query, j as key."""
        dtype, inputs = self.style.dtype, x.shape[-1]
        shape = (self.heads, inputs, self.width)

        def project(name):
            kernel = self.param(name, layers.torch_uniform(inputs), shape)
            return jnp.einsum("bnd,rde->bnre", x.astype(dtype), kernel.astype(dtype))

        scores = jnp.einsum(
            "bire,bjre->bijr",
            project("query"),
            project("key"),
            preferred_element_type=jnp.float32,
        )
        return scores * self.width**-0.5
