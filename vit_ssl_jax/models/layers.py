"""Transformer blocks: pre-norm, scanned, rematerialised.

B batch, N tokens, D width, A heads, E head width, L layers.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax import partition


def _torch_uniform(fan_in):
    """torch's default for a convolution: U(-1, 1) / sqrt(fan_in), kernel and bias."""
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


@dataclasses.dataclass(frozen=True)
class Init:
    """Initialisers of one family. `patch` and `patch_bias` are made from the fan-in."""

    dense: Callable
    patch: Callable
    patch_bias: Callable
    token: Callable


_XAVIER, _NORMAL = nn.initializers.xavier_uniform(), nn.initializers.normal(0.02)
_LECUN, _ZERO = nn.initializers.lecun_normal(), nn.initializers.zeros
# Truncation at +-2 absolute is no truncation at std 0.02, so `normal` it is.
INITS = {
    "mae": Init(_XAVIER, lambda fan_in: _XAVIER, _torch_uniform, _NORMAL),
    "ijepa": Init(_NORMAL, lambda fan_in: _NORMAL, lambda fan_in: _ZERO, _NORMAL),
    "timm": Init(_NORMAL, _torch_uniform, _torch_uniform, _NORMAL),
    "big_vision": Init(_XAVIER, lambda fan_in: _LECUN, lambda fan_in: _ZERO, _ZERO),
}

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """What all blocks of a model share."""

    dtype: str  # of matmuls and their activations: "bfloat16" or "float32"
    norm_eps: float  # LayerNorm epsilon
    gelu: str  # "exact" (erf) or "tanh"
    init: str  # a row of INITS
    remat: str  # a row of REMAT
    unroll: int  # blocks per iteration of the scan

    @property
    def initial(self):
        """Initialisers."""
        return INITS[self.init]


def norm(style, name):
    """LayerNorm over D: statistics in float32, two passes, output in float32."""
    return nn.LayerNorm(
        epsilon=style.norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name
    )


def dense(features, style, name, kernel_init=None):
    """Dense layer with bias in the style's dtype; parameters stay float32."""
    return nn.DenseGeneral(
        features,
        dtype=style.dtype,
        kernel_init=kernel_init or style.initial.dense,
        name=name,
    )


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: `[B N D] -> [B N D]`."""

    heads: int
    style: Style

    @nn.compact
    def __call__(self, x, valid=None):
        """Tokens where `valid [B N]` is False are never attended to."""
        width = x.shape[-1]
        qkv = dense((3, self.heads, width // self.heads), self.style, "qkv")(x)
        q, k, v = jnp.moveaxis(qkv, -3, 0)  # each [B N A E]
        # The library's softmax is in float32, its scale E^-1/2.
        out = jax.nn.dot_product_attention(
            q, k, v, mask=None if valid is None else valid[:, None, None, :]
        )
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            dtype=self.style.dtype,
            kernel_init=self.style.initial.dense,
            name="out",
        )(out)


class MLP(nn.Module):
    """Two dense layers with GELU between: `[B N D] -> [B N D]`."""

    hidden: int
    style: Style

    @nn.compact
    def __call__(self, x):
        h = dense(self.hidden, self.style, "up")(x)
        h = nn.gelu(h, approximate=self.style.gelu == "tanh")
        return dense(x.shape[-1], self.style, "down")(h)


class Block(nn.Module):
    """Pre-norm transformer block, written to be scanned over layers.

    The residual stream is float32, as under torch's autocast.
    """

    heads: int
    hidden: int
    style: Style
    train: bool
    collect: bool

    @nn.compact
    def __call__(self, x, rate, valid):
        """`[B N D], drop-path rate, [B N] or None -> x, x or None`."""
        x = partition.pin_batch(x)
        y = norm(self.style, "norm1")(x)
        y = Attention(self.heads, self.style, name="attn")(y, valid)
        x = x + self._drop_path(y, rate)
        y = norm(self.style, "norm2")(x)
        y = MLP(self.hidden, self.style, name="mlp")(y)
        x = partition.pin_batch(x + self._drop_path(y, rate))
        return x, (x if self.collect else None)

    def _drop_path(self, y, rate):
        """Stochastic depth: drops a sample's branch, divides the kept by 1 - rate."""
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

    @nn.compact
    def __call__(self, x, train, valid=None, collect=False):
        """`[B N D] -> [B N D], layers`; `layers` is `[L B N D]` when `collect`.

        Block i drops its branches with probability `droppath * i / (L - 1)`.
        """
        block = Block
        if self.style.remat != "none":
            policy = REMAT[self.style.remat]
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
            self.heads, self.hidden, self.style, train, collect, name="block"
        )
        return blocks(x.astype(jnp.float32), rates, valid)
