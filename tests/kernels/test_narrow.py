"""Rounding by a kernel is rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.kernels import narrow


def draw(*shape):
    """Values over many magnitudes."""
    rng = np.random.default_rng(0)
    return np.float32(rng.normal(size=shape) * 10.0 ** rng.integers(-20, 20, shape))


def count_kernels(x, dtype, interpret):
    """How many kernels rounding takes."""
    traced = jax.make_jaxpr(lambda x: narrow.narrow(x, dtype, interpret=interpret))(x)
    return str(traced).count("name=narrow") or str(traced).count("pallas_call")


@pytest.mark.parametrize("shape", [(2, 48, 128), (3, 2, 16, 256), (96, 128)])
def test_values_are_rounded_in_several_tiles(interpret, monkeypatch, shape):
    monkeypatch.setattr(narrow, "TILE", 32 * 128)
    x = draw(*shape)
    out = narrow.narrow(x, "bfloat16", interpret=interpret)
    assert out.shape == shape and out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, x.astype(jnp.bfloat16))
    assert count_kernels(x, "bfloat16", interpret) == 1


# bfloat16 comes in tiles of 16 rows and 128 lanes.
@pytest.mark.parametrize("shape", [(40, 128), (32, 192), (2, 16, 64)])
def test_what_fills_no_tile_is_left_to_the_compiler(interpret, shape):
    x = draw(*shape)
    assert count_kernels(x, "bfloat16", interpret) == 0
    out = narrow.narrow(x, "bfloat16", interpret=interpret)
    np.testing.assert_array_equal(out, x.astype(jnp.bfloat16))


def test_nothing_is_done_where_nothing_is_to_be_rounded(interpret):
    x = draw(32, 128)
    assert count_kernels(x, "float32", interpret) == 0
    np.testing.assert_array_equal(narrow.narrow(x, "float32", interpret=interpret), x)
