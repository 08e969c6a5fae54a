"""Features of any blocks and poolings from one forward pass.

A readout is a pair `(layers, pool)`: of the last `layers` blocks, first to last, side
by side, the class tokens ("cls"), the means of the patches ("mean": I-JEPA's last 4),
or the class tokens and then the last block's mean ("cls+mean": DINOv2).
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.errors import UserError

POOLS = ("cls", "mean", "cls+mean")


def standardize(x, cls, eps):
    """Class token and mean of the patches, standardised: `[B N(+1) D] -> [B S D]`.

    Every token is scaled to mean 0 and variance 1 before the mean is taken, as a
    LayerNorm does; its scale and bias may follow, for a mean is linear. So only pooled
    vectors outlive their block. `eps` None: the tokens as they are. S is 2, or 1 (the
    mean) without a class token.
    """
    if eps is not None:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(var + eps)
    mean = x[:, int(cls) :].mean(axis=1, keepdims=True)
    return jnp.concatenate([x[:, :1], mean], axis=1) if cls else mean


def check_readout(readout, depth, cls):
    """Raises UserError where a ViT has no such readout, a pair `(layers, pool)`."""
    count, how = readout
    if how not in POOLS or not 1 <= count <= depth:
        raise UserError(
            f"readout {readout}: say (layers, pool) with 1 to {depth} layers, for that "
            f"is the depth of the ViT, and a pool of {', '.join(POOLS)}"
        )
    if not cls and how != "mean":
        raise UserError(
            f"readout {readout}: {how!r} needs a class token, which this ViT doesn't "
            "have; use 'mean'"
        )


def choose(pooled, readout):
    """One vector an image from what `ViT.readout` gives: `[L B S D] -> [B F]`."""
    count, how = readout
    tokens, means = list(pooled[-count:, :, 0]), list(pooled[-count:, :, -1])
    parts = {"cls": tokens, "mean": means, "cls+mean": [*tokens, means[-1]]}[how]
    return jnp.concatenate(parts, axis=-1)
