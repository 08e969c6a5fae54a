"""LayerNorm with a dense layer, fused, against flax and autodiff."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.kernels import projection

WIDTH, WIDE, ROWS, EPS = 40, 56, 48, 1e-3
AT = jnp.array([2, 1, 0, 1])  # written, read, unused here, of the weights


def plain(x, scale, offset, kernel, bias):
    """flax's LayerNorm, then a product with the kernel `[F D]`."""
    norm = nn.LayerNorm(epsilon=EPS, use_fast_variance=False)
    y = norm.apply({"params": {"scale": scale[0], "bias": offset[0]}}, x)
    return y @ kernel.T + bias


@pytest.fixture(scope="module")
def arrays():
    """Input `[2 R D]`, weights of two layers, gradient `[R F]` and skip `[R D]`."""
    rng = np.random.default_rng(0)
    shapes = [(1, WIDTH), (1, WIDTH), (WIDE, WIDTH), (1, WIDE)]
    x = 3 + 2 * rng.normal(size=(2, ROWS, WIDTH))
    weights = [rng.normal(size=(2, *shape)) for shape in shapes]
    grad, skip = (rng.normal(size=(ROWS, width)) for width in (WIDE, WIDTH))
    return jax.tree.map(jnp.float32, (x, weights, grad, skip))


@pytest.mark.parametrize("tile", [16, 48])
def test_projection_and_every_gradient(interpret, arrays, tile):
    x, weights, grad, skip = arrays
    run = dict(tile=tile, eps=EPS, interpret=interpret)
    out = projection.project(AT, x, weights, jnp.full((3, ROWS, WIDE), 7.0), **run)
    expected, pull = jax.vjp(plain, x[1], *(w[1] for w in weights))
    np.testing.assert_allclose(out[2], expected, atol=1e-4)
    np.testing.assert_array_equal(out[:2], 7)

    ours = projection.project_backward(AT, x, weights, grad, skip, **run)
    theirs = pull(grad)
    assert len(ours) == 5
    np.testing.assert_allclose(ours[0], theirs[0] + skip, atol=1e-4)
    for mine, expected in zip(ours[1:], theirs[1:]):
        assert mine.shape == expected.shape
        np.testing.assert_allclose(mine, expected, atol=2e-4)
