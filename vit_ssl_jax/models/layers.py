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
from vit_ssl_jax.models import fused
from vit_ssl_jax.models.attention import attend
from vit_ssl_jax.models.dense import POLICY, Dense, gelu, is_low


def torch_uniform(fan_in):
    """torch's default for linear and convolution: U(-1, 1) / sqrt(fan_in), with bias."""
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


_XAVIER, _NORMAL = nn.initializers.xavier_uniform(), nn.initializers.normal(0.02)
_ZERO = nn.initializers.zeros


def _unit(width):
    """big_vision's learned positions: N(0, 1 / sqrt(D))."""
    return nn.initializers.normal(width**-0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """Initialisers of one family; the defaults are timm's, which most others changed.

    Truncation at +-2 absolute is no truncation at std 0.02, so `normal` it is.
    """

    dense: Callable = _NORMAL
    bias: Callable = _ZERO  # of attention
    mlp_bias: Callable = _ZERO
    norm_bias: Callable = _ZERO  # of the blocks' LayerNorms
    patch: Callable = torch_uniform  # made from the fan-in, as is the next
    patch_bias: Callable = torch_uniform
    token: Callable = _NORMAL  # class and mask token
    posemb: Callable = lambda width: _NORMAL  # made from the width
    head: Callable = _NORMAL  # kernel of a classifier or prediction head


_OFFSET = nn.initializers.constant(0.02)
INITS = {
    "timm": Init(),
    "mae": Init(dense=_XAVIER, patch=lambda fan_in: _XAVIER, head=_XAVIER),
    "ijepa": Init(patch=lambda fan_in: _NORMAL, patch_bias=lambda fan_in: _ZERO),
    "slowfast": Init(  # every bias of the backbone is 0.02, but not the convolution's
        patch=lambda fan_in: _NORMAL, bias=_OFFSET, mlp_bias=_OFFSET, norm_bias=_OFFSET
    ),
    "big_vision": Init(
        dense=_XAVIER,
        mlp_bias=nn.initializers.normal(1e-6),
        patch=lambda fan_in: nn.initializers.lecun_normal(),
        patch_bias=lambda fan_in: _ZERO,
        token=_ZERO,
        posemb=_unit,
        head=_ZERO,
    ),
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


def norm(style, name, bias_init=_ZERO):
    """LayerNorm over D: statistics in float32, two passes, output in float32."""
    return nn.LayerNorm(
        epsilon=style.norm_eps,
        dtype=jnp.float32,
        use_fast_variance=False,
        bias_init=bias_init,
        name=name,
    )


def dense(features, style, name, kernel_init=None, bias_init=_ZERO, axes=1):
    """Dense layer from the last `axes` axes to `features`, in the style's dtype."""
    return Dense(
        features if isinstance(features, tuple) else (features,),
        axes,
        style.dtype,
        kernel_init or style.initial.dense,
        bias_init,
        name=name,
    )


def whole(x):
    """What `collect` is where the residual stream itself is wanted: `[B N D]`."""
    return x


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: `[B N D] -> [B N D]`."""

    heads: int
    style: Style

    @nn.compact
    def __call__(self, x, valid=None):
        """Tokens where `valid [B N]` is False are never attended to."""
        width, style, bias = x.shape[-1], self.style, self.style.initial.bias
        shape = (3, self.heads, width // self.heads)
        qkv = dense(shape, style, "qkv", bias_init=bias)(x)
        return dense(width, style, "out", bias_init=bias, axes=2)(attend(qkv, valid))


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

    @nn.compact
    def __call__(self, x, rate, valid):
        """`[B N D], drop-path rate, [B N] or None -> x, collect(x) or None`."""
        style, bias = self.style, self.style.initial.norm_bias
        x = partition.pin_batch(x)
        y = norm(style, "norm1", bias)(x)
        y = Attention(self.heads, style, name="attn")(y, valid)
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
        """`[B N D] -> [B N D], collected`: `collect` of each block's output, `[L ...]`.

        Block i drops its branches with probability `droppath * i / (L - 1)`.
        """
        fast = fused.choose(self, x.shape)
        if fast and not collect and not self.is_initializing():
            block = self.variables["params"]["block"]
            noise = fused.draw_noise(self, len(x), train)
            return fused.run(block, x.astype(jnp.float32), valid, noise, fast), None
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
            collect,
            self.dropout,
            name="block",
        )
        return blocks(x.astype(jnp.float32), rates, valid)
