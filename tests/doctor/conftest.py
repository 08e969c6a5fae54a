"""Fused blocks on a CPU: the very kernels, interpreted, with a TPU's products."""

import jax
import jax.numpy as jnp
import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.kernels import attention, layer, parts
from vit_ssl_jax.models.fused import blocks as fused

PRODUCT = parts.dot


def wide_product(a, b, axis_a=1, axis_b=0):
    """Of bfloat16 with float32 sums, as a matrix unit does it; XLA for CPU can't."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return PRODUCT(a, b, axis_a, axis_b)


def choose(blocks, shape):
    """The style of interpreted kernels, in place of a chip's."""
    if blocks.style.kernels == "plain":
        return None
    mesh = jax.sharding.get_abstract_mesh()
    images = shape[0] // (1 if mesh.empty else partition.ways(mesh))
    rows = images * fused.padded(shape[1])
    return layer.BlockStyle(
        heads=blocks.heads,
        eps=blocks.style.norm_eps,
        exact=blocks.style.gelu == "exact",
        dropout=blocks.dropout,
        keep=True,
        tile=fused.choose_tile(rows, shape[2], blocks.hidden, 124 << 20),
        interpret=True,
    )


@pytest.fixture
def interpreted(monkeypatch):
    """Blocks that aren't plain run kernels; returns `monkeypatch`."""
    monkeypatch.setattr(parts, "dot", wide_product)
    monkeypatch.setattr(attention, "dot", wide_product)
    monkeypatch.setattr(fused, "choose", choose)
    return monkeypatch


@pytest.fixture
def one():
    """One of the devices."""
    return jax.devices()[:1]
