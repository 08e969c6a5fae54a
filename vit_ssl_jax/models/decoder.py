"""The narrow transformer that predicts hidden tokens: MAE's decoder, I-JEPA's predictor.

MAE puts mask tokens back into raster order; attention doesn't know about order, so
appending them behind the context with their own positions computes the same.
"""

import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention, layers
from vit_ssl_jax.ops import posemb


class Decoder(nn.Module):
    """Predicts `features` values for every wanted token."""

    grid: tuple  # (rows, columns) of the encoder
    width: int
    hidden: int  # width inside the MLPs
    depth: int
    heads: int
    features: int  # of a prediction
    cls: bool  # the context starts with a class token (position zero)
    style: layers.Style

    def setup(self):
        init = self.style.initial
        self.embed = layers.dense(self.width, self.style, "embed")
        self.mask_token = self.param("mask_token", init.token, (1, 1, self.width))
        self.blocks = layers.Blocks(self.depth, self.heads, self.hidden, self.style)
        self.norm = layers.norm(self.style, "norm")
        self.head = layers.dense(self.features, self.style, "head")

    def __call__(self, context, context_ids, ids, train, valid=None):
        """Predicts tokens: `[B K(+1) D], [B K], [B M] -> [B M features]` float32.

        `valid [B K+M]` says which context tokens and queries are real.
        """
        tokens, _ = self.decode(context, context_ids, ids, train, valid)
        wanted = tokens[:, -ids.shape[1] :]
        return self.head(wanted).astype(jnp.float32)

    def decode(self, context, context_ids, ids, train, valid=None, collect=None):
        """Normed tokens `[B K(+1)+M width]`, context first, and the blocks' outputs."""
        table = jnp.asarray(posemb.sincos(self.grid, self.width))
        places = jnp.pad(table[context_ids], ((0, 0), (int(self.cls), 0), (0, 0)))
        x = jnp.concatenate(
            [self.embed(context) + places, self.mask_token + table[ids]], axis=1
        )
        if self.cls:
            valid = attention.with_class_token(valid)
        x, collected = self.blocks(partition.pin_batch(x), train, valid, collect)
        return self.norm(x), collected
