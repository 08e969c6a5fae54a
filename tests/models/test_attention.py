"""Attention on every device against the formula, with gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import attention, device, layers, stack

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


@pytest.mark.parametrize("lengths", [None, [7, 4]], ids=["all", "first"])
def test_first_tokens_alone_are_attended_to(platform, qkv, lengths):
    """As many as are said, which is what flash attention is told."""
    valid = None if lengths is None else np.arange(7) < np.array(lengths)[:, None]
    said = None if lengths is None else jnp.array(lengths, jnp.int32)
    expected = formula(qkv, valid)
    np.testing.assert_allclose(attention.attend(qkv, said), expected, atol=1e-6)
    parts = jnp.moveaxis(jnp.asarray(qkv), 2, 0)
    ours = attention.by_cudnn(*parts, said, implementation="xla")
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@given(
    batch=st.integers(1, 4),
    tokens=st.integers(1, 40),
    kind=st.sampled_from(["all", "first", "some"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_arranged_tokens_are_even_valid_first_and_come_back(batch, tokens, kind, seed):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(batch, tokens, 3)), jnp.float32)
    mask = rng.random((batch, tokens)) < 0.6
    mask[:, 0] = True
    counts = mask.sum(1)
    valid = dict(all=None, first=jnp.asarray(counts), some=jnp.asarray(mask))[kind]
    arranged, lengths, restore = attention.arrange(x, valid)
    assert arranged.shape[1] % 2 == 0 and arranged.shape[1] - tokens < 8
    np.testing.assert_array_equal(restore(arranged), x)
    if kind == "all":
        assert lengths is None or lengths.tolist() == [tokens] * batch
        assert (lengths is None) == (tokens % 2 == 0)
        return
    assert lengths.dtype == jnp.int32 and lengths.tolist() == counts.tolist()
    if kind == "some":
        for row, own, valid_row in zip(arranged, x, mask, strict=True):
            np.testing.assert_array_equal(row[: valid_row.sum()], own[valid_row])


def test_the_gradient_of_moved_tokens_is_moved_back():
    """Against the one that jax derives of the same indexing."""
    rng = np.random.default_rng(0)
    x, weights = jnp.asarray(rng.normal(size=(2, 3, 6, 4)), jnp.float32)
    order = jnp.argsort(jnp.asarray(rng.random((3, 6))), axis=1)
    back = jnp.argsort(order, axis=1)

    def plain(x):
        return jnp.sum(weights * jnp.take_along_axis(x, order[:, :, None], 1) ** 2)

    def ours(x):
        return jnp.sum(weights * attention.permute(x, order, back) ** 2)

    np.testing.assert_array_equal(jax.grad(ours)(x), jax.grad(plain)(x))


@pytest.mark.parametrize(
    ("kernels", "head", "dtype", "reason"),
    [
        ("auto", 64, "bfloat16", ""),
        ("auto", 80, "bfloat16", ""),
        ("auto", 64, "float32", "bfloat16"),
        ("auto", 36, "bfloat16", "heads of 36 values"),
        ("auto", 256, "bfloat16", "heads of 256 values"),
        ("plain", 64, "bfloat16", "plain"),
    ],
)
def test_flash_attention_is_chosen_on_gpus_alone(
    monkeypatch, kernels, head, dtype, reason
):
    """What isn't for cuDNN is refused where only that is allowed, with the reason."""
    style = layers.Style(
        dtype=dtype,
        norm_eps=1e-6,
        gelu="tanh",
        init="timm",
        remat="none",
        unroll=1,
        kernels=kernels,
    )
    blocks = stack.Blocks(2, 2, 8 * head, style)
    shape = (2, 9, 2 * head)
    assert not attention.choose_flash(blocks, shape)  # on a CPU
    monkeypatch.setattr(device, "platform", lambda: "gpu")
    assert attention.choose_flash(blocks, shape) == (not reason)
    only = blocks.clone(style=dataclasses.replace(style, kernels="fused"))
    if reason and kernels != "plain":
        with pytest.raises(UserError, match=f"config.vit.kernels: 'fused'.*{reason}"):
            attention.choose_flash(only, shape)


def test_cards_before_ampere_have_plain_attention(monkeypatch):
    monkeypatch.setattr(device, "capability", lambda: (7, 5))
    assert "8.0" in attention.find_flash(64, "bfloat16")
    monkeypatch.setattr(device, "capability", lambda: (8, 6))
    assert attention.find_flash(64, "bfloat16") == ""


STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="tanh", init="timm", remat="dots", unroll=1
)


@pytest.mark.parametrize("tokens", [9, 12])
@pytest.mark.parametrize("kind", ["all", "first", "some"])
def test_blocks_on_arranged_tokens_are_the_plain_ones(monkeypatch, tiny, tokens, kind):
    """Outputs, what is collected, gradients: with jax's own attention for cuDNN's."""
    rng = np.random.default_rng(0)
    x, weights = jnp.asarray(rng.normal(size=(2, 3, tokens, 16)), jnp.float32)
    mask = np.arange(tokens) < np.array([[tokens], [3], [7]])
    mask = mask if kind == "first" else rng.permuted(mask, axis=1)
    said = jnp.asarray(mask.sum(1)) if kind == "first" else jnp.asarray(mask)
    mask, said = (None, None) if kind == "all" else (mask, said)
    blocks = stack.Blocks(2, 2, 24, STYLE)
    init = functools.partial(blocks.init, train=False)
    params = tiny.random(jax.eval_shape(init, jax.random.key(0), x))
    seen = np.ones((3, tokens), bool) if mask is None else mask
    weights = jnp.where(seen[:, :, None], weights, 0)  # others' outputs mean nothing

    def run(valid):
        def loss(params, x):
            out, collected = blocks.apply(params, x, True, valid, stack.whole)
            return jnp.sum(weights * out), (weights * out, weights[None] * collected)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    plain = run(None if mask is None else jnp.asarray(mask))
    asked = []

    def by_jax(q, k, v, lengths):
        asked.append(lengths)
        return by_cudnn(q, k, v, lengths, implementation="xla")

    by_cudnn = attention.by_cudnn
    monkeypatch.setattr(attention, "choose_flash", lambda *args: True)
    monkeypatch.setattr(attention, "by_cudnn", by_jax)
    arranged = run(said)
    assert asked and (asked[0] is None) == (kind == "all" and tokens == 12)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5),
        arranged,
        plain,
    )


def test_a_class_token_stands_before_the_valid_ones():
    assert attention.with_class_token(None) is None
    assert attention.with_class_token(jnp.array([2, 0])).tolist() == [3, 1]
    mask = attention.with_class_token(jnp.array([[False, True]]))
    assert mask.tolist() == [[True, False, True]]
