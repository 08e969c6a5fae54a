"""Initialisers of parameters, by family of published code."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def torch_uniform(fan_in):
    """torch's default for linear and convolution: U(-1, 1) / sqrt(fan_in), with bias."""
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


_XAVIER, _NORMAL = nn.initializers.xavier_uniform(), nn.initializers.normal(0.02)
_ZERO = nn.initializers.zeros


def _unit(width):
    """Initialiser of big_vision's learned positions: N(0, 1 / sqrt(D))."""
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
    "mmpretrain": Init(patch=lambda fan_in: _NORMAL),
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
