"""Dense layers: numbers, gradients, parameters, and what a CPU keeps in bfloat16."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import dense, device

LEADS, INNER = [(1, 1), (2, 5), (8,)], [(1,), (16,), (2, 8)]
OUTER = [(1,), (10,), (3, 2, 8)]
SHAPES = list(itertools.product(LEADS, INNER, OUTER))


def layer(inner, outer, dtype):
    """A layer, and flax's of the same sizes."""
    init = nn.initializers.xavier_uniform(), nn.initializers.normal(0.1)
    axes = tuple(range(-len(inner), 0))
    theirs = nn.DenseGeneral(
        outer, axis=axes, dtype=dtype, kernel_init=init[0], bias_init=init[1]
    )
    return dense.Dense(outer, len(inner), dtype, *init), theirs


@pytest.mark.parametrize(
    "platform, dtype, size",
    [
        ("cpu", "bfloat16", 3e-2),
        pytest.param("cpu", "float32", 2e-6, marks=pytest.mark.slow),
        pytest.param("tpu", "bfloat16", 3e-2, marks=pytest.mark.slow),
    ],
)
def test_layer_and_gradients_are_flax_s(monkeypatch, platform, dtype, size):
    """In all ranks, for XLA for CPU refuses some products of bfloat16."""
    monkeypatch.setattr(device, "platform", lambda: platform)
    for i, (lead, inner, outer) in enumerate(SHAPES):
        ours, theirs = layer(inner, outer, dtype)
        x = np.float32(np.random.default_rng(i).normal(size=(*lead, *inner)))
        params = ours.init(jax.random.key(i), x)
        jax.tree.map(
            np.testing.assert_array_equal, params, theirs.init(jax.random.key(i), x)
        )

        def loss(params, x, model):
            out = model.apply(params, x)
            assert out.dtype == dtype
            return jnp.sum(jnp.sin(out.astype(jnp.float32)))

        @jax.jit
        def grads(*at, models=(ours, theirs), loss=loss):
            return [jax.grad(loss, argnums=(0, 1))(*at, model) for model in models]

        found, expected = grads(params, x)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype == jnp.float32
            np.testing.assert_allclose(a, b, atol=size * max(1, np.abs(b).max()))


def test_low_gradients_of_parameters_are_not_rounded():
    """Of exact bfloat16 inputs the products' sums come out in full."""
    rng = np.random.default_rng(0)
    x, grad = (rng.integers(-8, 9, (3, 40, n)) for n in (24, 16))
    kernel, bias = jnp.zeros((24, 16)), jnp.zeros(16)
    low = jnp.asarray(x, jnp.bfloat16)
    _, pull = jax.vjp(dense.affine, low, kernel, bias)
    _, d_kernel, d_bias = pull(jnp.asarray(grad, jnp.bfloat16))
    np.testing.assert_array_equal(d_kernel, np.einsum("bnc,bnf->cf", x, grad))
    np.testing.assert_array_equal(d_bias, grad.sum((0, 1)))
    assert np.any(d_kernel != d_kernel.astype(jnp.bfloat16).astype(jnp.float32))


def test_keep_is_the_identity_and_keeps_bits_alone():
    x = jnp.asarray(np.linspace(-3, 3, 12).reshape(3, 4), jnp.bfloat16)
    np.testing.assert_array_equal(dense.keep(x), x)

    @jax.jit
    def saved(x):
        def twice(x):
            return jnp.sin(dense.keep(jnp.sin(x)))

        return jax.vjp(jax.checkpoint(twice, policy=dense.POLICY), x)[1]

    kept = jax.tree.leaves(jax.eval_shape(saved, x))
    assert sorted(leaf.dtype.name for leaf in kept) == ["bfloat16", "uint16"]
    (grad,) = saved(x)(jnp.ones_like(x))
    inner = np.sin(np.float32(x))
    np.testing.assert_allclose(
        np.float32(grad), np.cos(inner) * np.cos(np.float32(x)), atol=2e-2
    )


@pytest.mark.parametrize(
    "dtype, platform, expected",
    [("bfloat16", "cpu", 1), ("float32", "cpu", 0), ("bfloat16", "gpu", 0)],
)
def test_low_is_bfloat16_on_a_cpu(monkeypatch, dtype, platform, expected):
    monkeypatch.setattr(device, "platform", lambda: platform)
    assert dense.is_low(dtype) == bool(expected)


@pytest.mark.parametrize("axes", ["abd,df->abf", "bire,bjre->bijr"])
def test_wide_products_and_their_gradients_are_those_of_float32(axes):
    """Of float32 exactly; of bfloat16 the result isn't rounded, gradients are."""
    rng = np.random.default_rng(0)
    sizes = dict(zip("abdfijre", (2, 3, 4, 5, 6, 7, 2, 3), strict=True))
    left, right = axes.split("->")[0].split(",")
    a, b = (
        jnp.asarray(rng.normal(size=[sizes[n] for n in names]), jnp.float32)
        for names in (left, right)
    )
    weights = jnp.asarray(rng.normal(size=jnp.einsum(axes, a, b).shape), jnp.float32)

    def run(function, a, b):
        def loss(a, b):
            return jnp.sum(weights * function(axes, a, b))

        return function(axes, a, b), *jax.grad(loss, (0, 1))(a, b)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(
        run(dense.wide_einsum, a, b), run(jnp.einsum, a, b), strict=True
    ):
        close(ours, theirs)
    low = [x.astype(jnp.bfloat16) for x in (a, b)]
    exact = run(jnp.einsum, *(x.astype(jnp.float32) for x in low))
    ours = run(dense.wide_einsum, *low)
    assert [x.dtype for x in ours] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    close(ours[0], exact[0])
    for mine, theirs in zip(ours[1:], exact[1:], strict=True):
        scale = np.abs(theirs).max()
        assert 0 < np.abs(np.float32(mine) - theirs).max() < 2**-6 * scale


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_apart_are_the_parts_of_the_whole(dtype):
    """Queries, keys and values as arrays of their own, by the same parameters."""
    init = nn.initializers.xavier_uniform(), nn.initializers.normal(0.1)
    whole = dense.Dense((3, 2, 4), 1, dtype, *init)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6))
    variables = whole.init(jax.random.key(1), x)
    apart = dense.Dense((3, 2, 4), 1, dtype, *init, apart=True)
    assert jax.tree.map(jnp.shape, apart.init(jax.random.key(1), x)) == jax.tree.map(
        jnp.shape, variables
    )
    parts = apart.apply(variables, x)
    assert [part.shape for part in parts] == [(2, 5, 2, 4)] * 3
    expected = whole.apply(variables, x)
    for i, part in enumerate(parts):
        whole_part = np.float32(expected[:, :, i])
        np.testing.assert_allclose(np.float32(part), whole_part, rtol=1e-6, atol=1e-6)
