"""The second half of a block, fused, against plain formulas and autodiff."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.kernels import layer, mlp, parts

WIDTH, ROWS, TILE = 128, 48, 16
AT = jnp.array([1, 0, 2, 1])  # kept, read, written, of the weights


def make_style(**changes):
    """Products in float32."""
    numbers = dict(heads=2, eps=1e-3, exact=True, dropout=0.0, keep=True, tile=TILE)
    return layer.BlockStyle(**numbers | changes, dtype="float32")


def draw(wide, seed=0):
    """Stream, heads, weights of two layers and a gradient."""
    rng = np.random.default_rng(seed)
    row, shapes = (1, WIDTH), []
    shapes += [(WIDTH, WIDTH), row, row, row]
    shapes += [(WIDTH, wide), (1, wide), (wide, WIDTH), row]
    stream, heads = (rng.normal(size=(n, ROWS, WIDTH)) for n in (3, 2))
    # Preactivations within a few units, where GELU bends.
    weights = [rng.normal(size=(2, *s)) / np.sqrt(max(s[0], 2)) for s in shapes]
    grad = rng.normal(size=(ROWS, WIDTH))
    return jax.tree.map(jnp.float32, (stream, heads, weights, grad))


def make_noise(scales, seeds):
    """Scales of whole branches, 0 among them, and seeds of rows; as many as asked."""
    rng = np.random.default_rng(1)
    noise = []
    if scales:
        scales = rng.choice([0.0, 1.25, 2.0], (ROWS, 2))
        noise.append(jnp.float32(scales))
    if seeds:
        noise.append(jnp.int32(rng.integers(-(2**31), 2**31, (ROWS, 1))))
    return noise


def plain(x, heads, *weights, noise, style):
    """What `mix` says it does; also the stream and the hidden layer in the middle."""
    wo, bo, gain, offset, w1, b1, w2, b2 = weights
    scales = next((n for n in noise if n.dtype == jnp.float32), jnp.ones((ROWS, 2)))
    seeds = [n for n in noise if n.dtype == jnp.int32]

    def drop(y, site):
        for seed in seeds:
            y = y * parts.kept(seed, site, 0, y.shape[1], style.dropout)
        return y

    middle = x + drop(heads @ wo + bo, 0) * scales[:, :1]
    norm = nn.LayerNorm(epsilon=style.eps, use_fast_variance=False)
    y = norm.apply({"params": {"scale": gain[0], "bias": offset[0]}}, middle)
    hidden = y @ w1 + b1
    y = drop(jax.nn.gelu(hidden, approximate=not style.exact), 1)
    return middle + drop(y @ w2 + b2, 2) * scales[:, 1:], (middle, hidden)


# F, whether GELU is exact, scales, seeds, whether the loop over F is unrolled. Of 640
# hidden units 128 are worked on at a time, of 512 and of 96 all.
CASES = [
    (640, True, True, True, False),
    (640, False, False, False, True),
    (512, False, True, False, False),
    (96, True, False, True, False),
]


@pytest.mark.parametrize("wide, exact, scaled, seeded, unroll", CASES)
def test_mix_and_every_gradient(interpret, wide, exact, scaled, seeded, unroll):
    style = make_style(exact=exact, dropout=0.3 * seeded, unroll=unroll)
    stream, heads, weights, grad = draw(wide)
    noise = make_noise(scaled, seeded)
    run = dict(tile=TILE, style=style, interpret=interpret)
    room = (jnp.full((2, ROWS, size), 7.0) for size in (WIDTH, wide))
    out, middle, hidden = mlp.mix(
        AT, stream, heads, *room, noise=noise, weights=weights, **run
    )

    def reference(x, heads, *weights):
        return plain(x, heads, *weights, noise=noise, style=style)

    inputs = stream[0], heads[1], *(w[1] for w in weights)
    expected, pull, kept = jax.vjp(reference, *inputs, has_aux=True)
    np.testing.assert_allclose(out[2], expected, atol=2e-5)
    np.testing.assert_array_equal(out[:2], stream[:2])
    for ours, theirs in zip((middle, hidden), kept):
        np.testing.assert_allclose(ours[1], theirs, atol=2e-5)
        np.testing.assert_array_equal(ours[0], 7)

    ours = mlp.mix_backward(
        AT, grad, heads, middle, hidden, noise=noise, weights=weights, **run
    )
    theirs = pull(grad)
    assert len(ours) == len(theirs) == 10
    for mine, expected in zip(ours, theirs):
        assert mine.shape == expected.shape
        np.testing.assert_allclose(mine, expected, atol=1e-4)
    assert np.abs(theirs[0] - grad).max() > 0.1  # the branch has its part in it
