"""Attention on every device against the formula, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import attention, device

VALID = np.array([[True] * 7, [True, False, True, True, False, True, False]])


def formula(qkv, valid):
    """Softmax attention, written out in float64 by sums over single tokens."""
    qkv = np.asarray(qkv, np.float64)
    out = np.zeros(qkv[:, :, 0].shape)
    for b, n, a in np.ndindex(*out.shape[:3]):
        scores = qkv[b, :, 1, a] @ qkv[b, n, 0, a] / np.sqrt(qkv.shape[-1])
        weights = np.exp(scores - scores.max()) * (1 if valid is None else valid[b])
        out[b, n, a] = weights @ qkv[b, :, 2, a] / weights.sum()
    return out


@pytest.fixture
def qkv():
    """`[2 7 3 2 8]`."""
    return np.float32(np.random.default_rng(0).normal(size=(2, 7, 3, 2, 8)))


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def platform(request, monkeypatch):
    """As if on that platform; cuDNN itself needs a GPU, and bfloat16."""
    monkeypatch.setattr(device, "platform", lambda: request.param)
    return request.param


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "some"])
def test_output_is_the_formula(platform, qkv, valid):
    out = attention.attend(qkv, None if valid is None else jnp.asarray(valid))
    np.testing.assert_allclose(out, formula(qkv, valid), atol=1e-6)


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "some"])
def test_gradient_is_the_slope_of_the_formula(platform, qkv, valid):
    rng = np.random.default_rng(1)
    weights = np.float32(rng.normal(size=qkv[:, :, 0].shape))
    step = 1e-5 * rng.normal(size=qkv.shape)
    ahead, behind = formula(qkv + step, valid), formula(qkv - step, valid)
    slope = np.sum(weights * (ahead - behind)) / 2
    valid = None if valid is None else jnp.asarray(valid)
    grad = jax.grad(lambda x: jnp.sum(weights * attention.attend(x, valid)))(qkv)
    # One direction might miss an error that is at right angles to it: so the size, too.
    assert np.sum(grad * step) == pytest.approx(slope, rel=1e-4)
    if valid is not None:
        keys_and_values = np.asarray(grad)[:, :, 1:]
        assert not np.any(keys_and_values[~VALID]) and np.any(keys_and_values[VALID])


@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_every_gradient_is_the_one_that_jax_derives(qkv, which):
    part = "qkv".index(which)

    def loss(attend, x):
        return jnp.sum(jnp.sin(3 * attend(x, jnp.asarray(VALID))))

    def plain(x, valid):
        mask = valid[:, None, None]
        return jax.nn.dot_product_attention(*jnp.moveaxis(x, 2, 0), mask=mask)

    ours = jax.grad(lambda x: loss(attention.by_heads, x))(qkv)[:, :, part]
    expected = jax.grad(lambda x: loss(plain, x))(qkv)[:, :, part]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_bfloat16_is_the_formula_within_its_rounding(qkv):
    low = jnp.asarray(qkv, jnp.bfloat16)
    out = attention.by_heads(low, None)
    assert out.dtype == jnp.bfloat16
    error = np.abs(np.float64(out) - formula(low.astype(jnp.float32), None)).max()
    assert 0 < error < 2**-7


@pytest.mark.parametrize(
    "shape, dtype, masked, expected",
    [
        ((2, 197, 3, 12, 64), "bfloat16", False, True),
        ((2, 197, 3, 12, 64), "bfloat16", True, False),  # an odd number of tokens
        ((2, 196, 3, 12, 64), "bfloat16", True, True),
        ((2, 196, 3, 12, 64), "float32", False, False),
        ((2, 196, 3, 12, 36), "bfloat16", False, False),
        ((2, 196, 3, 12, 256), "bfloat16", False, False),
    ],
)
def test_flash_attention_where_cudnn_takes_it(
    monkeypatch, shape, dtype, masked, expected
):
    """Which implementation jax is asked for on a GPU."""
    asked = []
    monkeypatch.setattr(device, "platform", lambda: "gpu")
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda q, k, v, mask, implementation: asked.append(implementation) or q,
    )
    valid = jax.ShapeDtypeStruct(shape[:2], bool) if masked else None
    qkv = jax.ShapeDtypeStruct(shape, dtype)
    jax.eval_shape(attention.attend, qkv, valid)
    assert asked == ["cudnn" if expected else "xla"]
