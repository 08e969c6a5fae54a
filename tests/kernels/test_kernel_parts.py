"""Pieces of kernels: derivatives against autodiff, dropout against its statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.kernels import parts

RATE, IMAGES, TOKENS, WIDTH = 0.1, 8, 128, 1024


@pytest.mark.slow  # there XLA has no flags of ours: they round otherwise
@pytest.mark.parametrize("exact", [True, False])
def test_gelu_and_its_derivative(exact):
    x = np.linspace(-9, 9, 721)
    value, slope = parts.gelu(jnp.float32(x[None]), exact)
    reference = functools.partial(jax.nn.gelu, approximate=not exact)
    with jax.enable_x64():
        expected = jax.vmap(jax.value_and_grad(reference))(x)
    assert expected[0].dtype == np.float64
    np.testing.assert_allclose(value[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(slope[0], expected[1], atol=4e-6)


def test_standardize_and_its_gradient():
    rng = np.random.default_rng(0)
    x, grad = (jnp.float32(rng.normal(size=(5, 24))) for _ in range(2))
    x = 1e2 + 3 * x

    def reference(x):
        mean, square = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        return (x - mean) / jnp.sqrt(square + 0.5)

    expected, pull = jax.vjp(reference, x)
    unit, rate = parts.standardize(x, 0.5)
    np.testing.assert_allclose(unit, expected, atol=2e-5)
    np.testing.assert_allclose(
        rate[:, 0], 1 / np.sqrt(np.float64(x).var(1) + 0.5), rtol=1e-5
    )
    back = parts.standardize_backward(unit, rate, grad)
    np.testing.assert_allclose(back, pull(grad)[0], atol=2e-5)


def test_dot_contracts_the_axes_named_in_float32():
    a = jnp.arange(6.0).reshape(2, 3).astype("bfloat16")
    b = jnp.arange(12.0).reshape(4, 3).astype("bfloat16")
    for ours, theirs in (
        (parts.dot(a, b, 1, 1), np.float32(a) @ np.float32(b).T),
        (parts.dot(a, b.T), np.float32(a) @ np.float32(b).T),
        (parts.dot(a, a, 0, 0), np.float32(a).T @ np.float32(a)),
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def seeds():
    """Of the rows of some images in two layers: `[2 R 1]`, as a stack draws them."""
    seeds = jax.random.bits(jax.random.key(1), (2, IMAGES)).astype(jnp.int32)
    return [parts.row_seeds(s, TOKENS).reshape(-1, 1) for s in seeds]


@pytest.fixture(scope="module")
def kept(seeds):
    """Dropout's factors of one layer and site: `[R D]`."""
    return np.asarray(parts.kept(seeds[0], 1, 0, WIDTH, RATE))


def test_row_seeds_differ(seeds):
    assert len(np.unique(seeds)) == 2 * IMAGES * TOKENS
    images = jnp.array([5, -9], jnp.int32)
    rows = parts.row_seeds(images, 3)
    assert rows.shape == (2, 3, 1)
    np.testing.assert_array_equal(rows[:, 0, 0], images)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(seeds, rate):
    factors = np.asarray(parts.kept(seeds[0], 0, 0, WIDTH, rate))
    values = np.unique(factors)
    np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / factors.size)
    assert abs((factors == 0).mean() - rate) < 5 * deviation


def test_dropout_treats_rows_and_columns_alike(kept):
    """Shares of single rows and columns scatter as a binomial's do."""
    dropped = kept == 0
    for axis in (0, 1):
        shares = dropped.mean(axis=axis)
        expected = np.sqrt(RATE * (1 - RATE) / dropped.shape[axis])
        assert abs(shares.std() / expected - 1) < 5 / np.sqrt(2 * len(shares))
        assert np.abs(shares - RATE).max() < 6 * expected


def normalized(factors):
    """Factors with mean 0 and deviation 1, were they drawn independently."""
    return ((np.asarray(factors) > 0) - (1 - RATE)) / np.sqrt(RATE * (1 - RATE))


def test_dropout_is_independent_between_neighbours(kept):
    """Rows and columns next to each other, a power of two and an image apart."""
    z = normalized(kept)
    for row, column in [(0, 1), (0, 2), (0, 128), (0, 512), (1, 0), (2, 0), (8, 0)] + [
        (TOKENS, 0),
        (1, 1),
        (TOKENS, 128),
    ]:
        pairs = z[row:, column:] * z[: len(z) - row, : WIDTH - column]
        assert abs(pairs.sum()) < 5 * np.sqrt(pairs.size), (row, column)


def assert_independent(z):
    """No pair of rows correlates by more than chance: 5e5 pairs, 6.5 deviations.

    And together they scatter as independent ones do.
    """
    products = z @ z.T / np.sqrt(z.shape[1])
    pairs = products[np.triu_indices(len(z), 1)]
    assert np.abs(pairs).max() < 6.5
    assert pairs.std() == pytest.approx(1, abs=0.02)


def test_dropout_is_independent_between_all_rows_and_all_columns(kept):
    assert_independent(normalized(kept))
    assert_independent(normalized(kept).T)


def test_dropout_is_independent_between_rows_of_similar_seeds():
    seeds = jnp.arange(1, 1025, dtype=jnp.int32)[:, None]
    assert_independent(normalized(parts.kept(seeds, 1, 0, WIDTH, RATE)))


def test_dropout_is_independent_between_sites_and_layers(seeds, kept):
    other = parts.kept(seeds[1], 1, 0, WIDTH, RATE)
    sites = [parts.kept(seeds[0], site, 0, WIDTH, RATE) for site in (0, 2, 3)]
    for factors in (other, *sites):
        both = normalized(kept) * normalized(factors)
        assert abs(both.sum()) < 5 * np.sqrt(both.size)


def test_dropout_does_not_depend_on_tiles(seeds, kept):
    half, rows = WIDTH // 4, seeds[0][100:164]
    tile = parts.kept(rows, 1, half, 2 * half, RATE)
    np.testing.assert_array_equal(tile, kept[100:164, half : 3 * half])


def test_the_hash_spreads_every_bit():
    x = jax.random.bits(jax.random.key(0), (4096, 1)).astype(jnp.int32)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    flipped = parts.scramble(x) ^ parts.scramble(x ^ bits.view(np.int32)[None])
    changed = np.asarray(flipped).view(np.uint32)[..., None] & bits != 0
    shares = changed.mean(axis=0)  # of values, by the bit turned and the bit looked at
    assert shares.shape == (32, 32)
    assert np.abs(shares - 0.5).max() < 0.05  # 6.4 deviations


def test_the_hash_loses_nothing():
    """Each of its steps can be undone, so different values stay different."""
    x = jnp.arange(-(2**17), 2**17, dtype=jnp.int32) * 8191
    assert len(np.unique(parts.scramble(x))) == len(np.unique(x)) == 2**18
