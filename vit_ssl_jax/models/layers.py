"""Transformer blocks: pre-norm, scanned, rematerialised.

B batch, N tokens, D width, A heads, E head width, L layers.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention
from vit_ssl_jax.models.dense import POLICY, Dense, gelu, is_low
from vit_ssl_jax.models.fused import blocks as fused
from vit_ssl_jax.models.initial import INITS

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

# Blocks and attention: fused where the device, dtype and shapes allow it; never; or only so.
KERNELS = ("auto", "plain", "fused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """Settings that all blocks of a model share."""

    dtype: str  # of matmuls and their activations: "bfloat16" or "float32"
    norm_eps: float  # LayerNorm epsilon
    gelu: str  # "exact" (erf) or "tanh"
    init: str  # a row of INITS
    remat: str  # a row of REMAT
    unroll: int  # blocks per iteration of the scan
    kernels: str = "auto"  # one of KERNELS

    @property
    def initial(self):
        """The initialisers that `init` names."""
        return INITS[self.init]


def norm(style, name, bias_init=nn.initializers.zeros):
    """LayerNorm over D: statistics in float32, two passes, output in float32."""
    return nn.LayerNorm(
        epsilon=style.norm_eps,
        dtype=jnp.float32,
        use_fast_variance=False,
        bias_init=bias_init,
        name=name,
    )


def dense(
    features,
    style,
    name,
    kernel_init=None,
    bias_init=nn.initializers.zeros,
    *,
    axes=1,
    apart=False,
):
    """Makes a `Dense` from the last `axes` axes to `features`, in the style's dtype."""
    return Dense(
        features if isinstance(features, tuple) else (features,),
        axes,
        style.dtype,
        kernel_init or style.initial.dense,
        bias_init,
        apart,
        name=name,
    )


def whole(x):
    """Identity: the `collect` that keeps the residual stream itself, `[B N D]`."""
    return x


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: `[B N D] -> [B N D]`."""

    heads: int
    style: Style
    flash: bool = False  # by cuDNN

    @nn.compact
    def __call__(self, x, valid=None):
        """Attends; `valid` as in `attention.attend`."""
        width, style, bias = x.shape[-1], self.style, self.style.initial.bias
        shape = (3, self.heads, width // self.heads)
        qkv = dense(shape, style, "qkv", bias_init=bias, apart=self.flash)(x)
        if self.flash:
            out = attention.by_cudnn(*qkv, valid)
        else:
            out = attention.attend(qkv, valid)
        return dense(width, style, "out", bias_init=bias, axes=2)(out)


class MLP(nn.Module):
    """Two dense layers with GELU between: `[B N D] -> [B N D]`."""

    hidden: int
    style: Style
    dropout: float = 0.0  # after GELU

    @nn.compact
    def __call__(self, x, train):
        bias = self.style.initial.mlp_bias
        h = dense(self.hidden, self.style, "up", bias_init=bias)(x)
        h = gelu(h, self.style)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return dense(x.shape[-1], self.style, "down", bias_init=bias)(h)


class Block(nn.Module):
    """Pre-norm transformer block, written to be scanned over layers.

    The residual stream is float32, as under torch's autocast.
    """

    heads: int
    hidden: int
    style: Style
    train: bool
    collect: Callable | None  # of the residual stream [B N D]
    dropout: float = 0.0
    flash: bool = False  # attention by cuDNN

    @nn.compact
    def __call__(self, x, rate, valid):
        """Runs the block: `[B N D], drop-path rate, valid -> x, collect(x) or None`."""
        style, bias = self.style, self.style.initial.norm_bias
        x = partition.pin_batch(x)
        y = norm(style, "norm1", bias)(x)
        y = Attention(self.heads, style, self.flash, name="attn")(y, valid)
        x = x + self._drop(y, rate)
        y = norm(style, "norm2", bias)(x)
        y = MLP(self.hidden, style, self.dropout, name="mlp")(y, self.train)
        x = partition.pin_batch(x + self._drop(y, rate))
        return x, (self.collect(x) if self.collect else None)

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
    style: Style
    droppath: float = 0.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train, valid=None, collect=None):
        """Runs blocks: `[B N D] -> [B N D], [L ...]`, `collect` of each block's output.

        `valid` as in `attention.attend`. Block i drops its branches with probability
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
            x, valid, restore = attention.arrange(partition.pin_batch(x), valid)
            x = partition.pin_batch(x)
            seen = collect and (lambda x: collect(restore(x)))
        block, policy = Block, REMAT[self.style.remat]
        if is_low(self.style.dtype) and self.style.remat != "full":
            policy = POLICY
        if policy:
            block = nn.remat(Block, policy=policy, prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
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
            name="block",
        )
        x, collected = blocks(x.astype(jnp.float32), rates, valid)
        return (partition.pin_batch(restore(x)) if flash else x), collected
