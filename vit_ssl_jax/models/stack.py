"""Transformer blocks: pre-norm, scanned, rematerialised.

B batch, N tokens, D width, E head width, L layers.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention, layers
from vit_ssl_jax.models.dense import POLICY, is_low
from vit_ssl_jax.models.fused import blocks as fused


def whole(x):
    """Identity: the `collect` that keeps the residual stream itself, `[B N D]`."""
    return x


class Block(nn.Module):
    """Pre-norm transformer block, written to be scanned over layers.

    The residual stream is float32, as under torch's autocast.
    """

    heads: int
    hidden: int
    style: layers.Style
    train: bool
    collect: Callable | None  # of the residual stream [B N D]
    dropout: float = 0.0
    flash: bool = False  # attention by cuDNN
    form: layers.Form = layers.Form()

    @nn.compact
    def __call__(self, x, rate, valid, rotations=None):
        """Runs the block: `[B N D], drop-path rate, ... -> x, collect(x) or None`."""
        style, form, bias = self.style, self.form, self.style.initial.norm_bias
        x = partition.pin_batch(x)
        y = layers.norm(style, "norm1", bias)(x)
        attend = layers.Attention(
            self.heads, style, self.flash, form.qkv_bias, name="attn"
        )
        x = x + self._drop(self._scale(attend(y, valid, rotations), "ls1"), rate)
        y = layers.norm(style, "norm2", bias)(x)
        mlp = {"gelu": layers.MLP, "swiglu": layers.SwiGLU}[form.mlp]
        y = mlp(self.hidden, style, self.dropout, name="mlp")(y, self.train)
        x = partition.pin_batch(x + self._drop(self._scale(y, "ls2"), rate))
        return x, (self.collect(x) if self.collect else None)

    def _scale(self, y, name):
        """LayerScale, where the form has it."""
        first = self.form.layerscale
        return layers.LayerScale(first, name=name)(y) if first else y

    def _drop(self, y, rate):
        """Dropout, then stochastic depth: a sample's branch is left out whole.

        What is kept is divided by 1 - rate.
        """
        y = nn.Dropout(self.dropout, deterministic=not self.train)(y)
        if not self.train or rate is None:
            return y
        keep = 1.0 - rate
        shape = (y.shape[0],) + (1,) * (y.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, y / keep.astype(y.dtype), 0)


class Blocks(nn.Module):
    """`depth` blocks under one scan: parameters carry a leading layer axis."""

    depth: int
    heads: int
    hidden: int
    style: layers.Style
    droppath: float = 0.0
    dropout: float = 0.0
    form: layers.Form = layers.Form()

    @nn.compact
    def __call__(self, x, train, valid=None, collect=None, rotations=None):
        """Runs blocks: `[B N D] -> [B N D], [L ...]`, `collect` of each block's output.

        `valid` as in `attention.attend`; `rotations` of every token, as in
        `rope.rotate`, or None. Block i drops its branches with probability
        `droppath * i / (L - 1)`.
        """
        fast = fused.choose(self, x.shape)
        if fast and not collect and not self.is_initializing():
            block = self.variables["params"]["block"]
            noise = fused.draw_noise(self, len(x), train)
            valid = attention.as_mask(valid, x.shape[1])
            return fused.apply(block, x.astype(jnp.float32), valid, noise, fast), None
        flash, seen = attention.choose_flash(self, x.shape), collect
        if flash:
            # Pinned on both sides, or the partitioner exchanges whole streams there.
            if rotations is not None:
                rotations = arrange_table(rotations, valid)
            x, valid, restore = attention.arrange(partition.pin_batch(x), valid)
            x = partition.pin_batch(x)
            seen = collect and (lambda x: collect(restore(x)))
        block, policy = Block, layers.REMAT[self.style.remat]
        if is_low(self.style.dtype) and self.style.remat != "full":
            policy = POLICY
        if policy:
            block = nn.remat(Block, policy=policy, prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=min(self.style.unroll, self.depth),
        )
        rates = None
        if self.droppath:
            rates = jnp.linspace(0.0, self.droppath, self.depth)
        blocks = scanned(
            self.heads,
            self.hidden,
            self.style,
            train,
            collect=seen,
            dropout=self.dropout,
            flash=flash,
            form=self.form,
            name="block",
        )
        x, collected = blocks(x.astype(jnp.float32), rates, valid, rotations)
        return (partition.pin_batch(restore(x)) if flash else x), collected


def arrange_table(rotations, valid):
    """Rotations `[B|1 N 2 E]` in the order that `attention.arrange` gives the tokens."""
    flat = rotations.reshape(*rotations.shape[:2], -1)
    if valid is not None and valid.ndim == 2:  # every image has an order of its own
        flat = jnp.broadcast_to(flat, (len(valid), *flat.shape[1:]))
    moved, _, _ = attention.arrange(flat, valid)
    return moved.reshape(*moved.shape[:2], *rotations.shape[2:])
