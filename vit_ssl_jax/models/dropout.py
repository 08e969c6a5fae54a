"""Dropout outside the blocks, drawn as the fused kernels draw theirs."""

import jax
import jax.numpy as jnp

from vit_ssl_jax.kernels import parts

SITE = 3  # 0 to 2 are inside a block


def drop(tokens, key, rate):
    """Dropout of `[B N D]` at the cost of a product a value (see `parts.kept`)."""
    batch, count, width = tokens.shape
    seeds = jax.random.bits(key, (batch,)).astype(jnp.int32)
    rows = parts.row_seeds(seeds, count).reshape(-1, 1)
    kept = parts.kept(rows, SITE, 0, width, rate)
    return tokens * kept.reshape(tokens.shape)
