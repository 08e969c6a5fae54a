"""The narrow transformer that predicts hidden tokens: MAE's decoder, I-JEPA's predictor.

MAE puts mask tokens back into raster order; attention doesn't know about order, so
appending them behind the context with their own positions computes the same.
"""

import flax.linen as nn
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention, layers, stack
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
    posemb: str = "sincos"  # fixed; "learned": a parameter, with a class token's row

    def setup(self):
        init = self.style.initial
        if self.posemb == "learned":
            shape = (1, self.grid[0] * self.grid[1] + self.cls, self.width)
            self.table = self.param("posemb", init.posemb(self.width), shape)
        self.embed = layers.dense(self.width, self.style, "embed")
        self.mask_token = self.param("mask_token", init.token, (1, 1, self.width))
        self.blocks = stack.Blocks(self.depth, self.heads, self.hidden, self.style)
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
        cls = int(self.cls)
        if self.posemb == "learned":
            first, table = self.table[:, :cls], self.table[0, cls:]
        else:
            table = jnp.asarray(posemb.sincos(self.grid, self.width))
            first = jnp.zeros((1, cls, self.width))
        first = jnp.broadcast_to(first, (len(context), cls, self.width))
        places = jnp.concatenate([first, table[context_ids]], axis=1)
        x = jnp.concatenate(
            [self.embed(context) + places, self.mask_token + table[ids]], axis=1
        )
        if self.cls:
            valid = attention.with_class_token(valid)
        x, collected = self.blocks(partition.pin_batch(x), train, valid, collect)
        return self.norm(x), collected
