"""Pair scores against the published test vector and numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import layers, outputs

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="exact", init="timm", remat="none", unroll=1
)


def wave(phase):
    """The vector's rule for a weight `[2 18]`, as ours `[18 2]`."""
    return (0.2 * np.sin(0.7 * phase + 0.3 * np.arange(36))).reshape(2, 18).T


def test_logits_of_a_bfloat16_model_are_not_rounded_to_it():
    """Sums of products of bfloat16 numbers, as exact as float32 has them."""
    style = dataclasses.replace(STYLE, dtype="bfloat16")
    rng = np.random.default_rng(0)
    x, kernel = (jnp.bfloat16(rng.normal(size=s)) for s in ((4, 64), (64, 3)))
    params = {"kernel": jnp.float32(kernel), "bias": jnp.float32([-10, 0, 10])}
    out = outputs.logits(3, style, None).apply({"params": params}, x)
    assert out.dtype == jnp.float32
    wide = [np.float64(np.float32(a)) for a in (x, kernel)]
    expected = wide[0] @ wide[1] + [[-10, 0, 10]]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(jnp.float32(jnp.bfloat16(out)) - expected).max() > 1e-3


def test_published_vector():
    z = jnp.float32(np.sin(0.5 * np.arange(144)).reshape(2, 4, 18))
    params = {
        name: jnp.float32(np.stack([wave(3 * c + turn) for c in range(9)]))
        for name, turn in (("query", 1), ("key", 2))
    }
    out = outputs.PairScores(9, 2, STYLE).apply({"params": params}, z)
    assert out.shape == (2, 4, 4, 9) and out.dtype == jnp.float32
    expected = [-0.11885587, -0.13200871, -0.84169868, -0.13267946, -0.11819818]
    expected += [-0.84141661, -0.14676657, -0.10466754, -0.84059659]
    np.testing.assert_allclose(out[0, 0, 1], expected, atol=2e-6)
    labels = np.array([[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    right = jnp.take_along_axis(jax.nn.log_softmax(out), labels[None, ..., None], -1)
    assert -right.mean() == pytest.approx(2.2117824411, rel=2e-6)


def test_a_score_is_that_of_a_query_and_a_key():
    """Entry (i, j) doesn't change with what comes after them, and isn't (j, i)."""
    model = outputs.PairScores(2, 3, STYLE)
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 4, 6)))
    params = model.init(jax.random.key(0), x)["params"]
    out = model.apply({"params": params}, x)
    expected = (x[0, 1] @ params["query"][1]) @ (x[0, 2] @ params["key"][1]) / 3**0.5
    assert out[0, 1, 2, 1] == pytest.approx(float(expected), abs=1e-6)
    assert abs(out[0, 1, 2, 1] - out[0, 2, 1, 1]) > 1e-3


def test_initial_weights_are_uniform_and_half_precision_ends_in_float32():
    style = layers.Style(
        **{f: getattr(STYLE, f) for f in STYLE.__dataclass_fields__ if f != "dtype"},
        dtype="bfloat16",
    )
    model = outputs.PairScores(9, 42, style)
    params = model.init(jax.random.key(0), jnp.zeros((1, 2, 384)))["params"]
    assert jax.tree.map(jnp.shape, params) == {
        k: (9, 384, 42) for k in ("query", "key")
    }
    for x in params.values():
        assert x.dtype == jnp.float32
        assert np.abs(x).max() == pytest.approx(384**-0.5, rel=1e-3)
        assert x.std() == pytest.approx(384**-0.5 / 3**0.5, rel=1e-2)
    x = jnp.float32(np.random.default_rng(0).normal(size=(1, 2, 384)))
    half = model.apply({"params": params}, x)
    full = outputs.PairScores(9, 42, STYLE).apply({"params": params}, x)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.02)
