"""Layers of a transformer block: attention, MLPs, norms; and the style they share.

B batch, N tokens, D width, A heads, E head width.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_ssl_jax.errors import UserError, check_choice
from vit_ssl_jax.models import attention
from vit_ssl_jax.models.dense import Dense, gelu
from vit_ssl_jax.models.initial import INITS
from vit_ssl_jax.ops import rope

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


def make_style(config):
    """Makes a `Style` from `config.vit`, every choice checked."""
    check_choice("config.vit.dtype", config.dtype, ("bfloat16", "float32"))
    check_choice("config.vit.gelu", config.gelu, ("exact", "tanh"))
    check_choice("config.vit.init", config.init, INITS)
    check_choice("config.vit.remat", config.remat, REMAT)
    check_choice("config.vit.kernels", config.kernels, KERNELS)
    if config.unroll < 1:
        raise UserError(f"config.vit.unroll: {config.unroll} is not at least 1")
    fields = Style.__dataclass_fields__
    return Style(**{name: config[name] for name in fields})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """What the blocks of later ViTs have beyond those of the first (`variants.EXTRAS`)."""

    rope: float = 0.0  # base of DINOv3's rotary positions, 0.0: none
    layerscale: float = 0.0  # first factor of a branch (CaiT, 2021), 0.0: none
    mlp: str = "gelu"  # or "swiglu" (Shazeer, 2020)
    qkv_bias: str = "qkv"  # those of queries, keys and values that have a bias

    @property
    def kind(self):
        """What two forms share that weights of one fit: not how they are initialised."""
        return self.rope, bool(self.layerscale), self.mlp, self.qkv_bias


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
    biased=(),
):
    """Makes a `Dense` from the last `axes` axes to `features`, in the style's dtype."""
    return Dense(
        features if isinstance(features, tuple) else (features,),
        axes=axes,
        dtype=style.dtype,
        kernel_init=kernel_init or style.initial.dense,
        bias_init=bias_init,
        apart=apart,
        biased=biased,
        name=name,
    )


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection: `[B N D] -> [B N D]`."""

    heads: int
    style: Style
    flash: bool = False  # by cuDNN
    biased: str = "qkv"  # as Form.qkv_bias

    @nn.compact
    def __call__(self, x, valid=None, rotations=None):
        """Attends; `valid` as in `attention.attend`, `rotations` as in `rope.rotate`."""
        width, style, bias = x.shape[-1], self.style, self.style.initial.bias
        shape = (3, self.heads, width // self.heads)
        biased = tuple(letter in self.biased for letter in "qkv")
        qkv = dense(
            shape, style, "qkv", bias_init=bias, apart=self.flash, biased=biased
        )(x)
        if rotations is not None:
            q, k, v = qkv if self.flash else jnp.moveaxis(qkv, 2, 0)
            qkv = rope.rotate(q, rotations), rope.rotate(k, rotations), v
            qkv = qkv if self.flash else jnp.stack(qkv, 2)
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


class SwiGLU(nn.Module):
    """Gated MLP, `silu(a) * b` between two dense layers: `[B N D] -> [B N D]`."""

    hidden: int
    style: Style
    dropout: float = 0.0  # after the product

    @nn.compact
    def __call__(self, x, train):
        bias = self.style.initial.mlp_bias
        both = dense((2, self.hidden), self.style, "gated", bias_init=bias)(x)
        gate, h = both[..., 0, :], both[..., 1, :]
        h = nn.silu(gate.astype(jnp.float32)).astype(h.dtype) * h
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return dense(x.shape[-1], self.style, "down", bias_init=bias)(h)


class LayerScale(nn.Module):
    """A factor a channel, `first` to begin with: `[B N D] -> [B N D]`."""

    first: float

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.constant(self.first)
        return x * self.param("scale", init, x.shape[-1:])[None, None]
