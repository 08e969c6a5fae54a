"""Fused attention and its gradient against a plain softmax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.kernels import attention

IMAGES, LAYERS = 2, 3
# Width, heads, padded tokens, and each image's valid tokens. Heads of 32 lanes in a
# group of four and two such groups, of 64 and of 16; of 128 and 80 alone; groups that
# heads don't fill; one head wider than a group.
SHAPES = [
    (128, 4, 24, (21, 24)),
    (256, 8, 16, (16, 3)),
    (128, 2, 40, (37, 1)),
    (128, 8, 8, (5, 8)),
    (256, 2, 16, (11, 16)),
    (160, 2, 24, (20, 7)),
    (96, 3, 16, (15, 16)),
    (192, 3, 8, (8, 8)),
    (256, 1, 8, (6, 8)),
]


def plain(qkv, keys, heads):
    """`[R 3D], [B 8 P] -> [R D]`: softmax(q k / sqrt(E) + keys) v, head by head."""
    images, _, tokens = keys.shape
    width = qkv.shape[-1] // 3
    head, outs = width // heads, []
    qkv = qkv.reshape(images, tokens, 3 * width)
    for i in range(heads):
        starts = (part * width + i * head for part in range(3))
        q, k, v = (qkv[..., start : start + head] for start in starts)
        scores = jnp.einsum("bqe,bke->bqk", q, k) / np.sqrt(head) + keys[:, :1]
        weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        outs.append(jnp.einsum("bqk,bke->bqe", weights, v))
    return jnp.concatenate(outs, axis=-1).reshape(-1, width)


def make_keys(tokens, valid):
    """`[B 8 P]`: 0 for each image's first tokens, else NEVER."""
    valid = np.arange(tokens)[None] < np.array(valid)[:, None]
    row = np.where(valid, 0, attention.NEVER).astype(np.float32)
    return jnp.asarray(np.repeat(row[:, None], 8, axis=1))


def draw(*shape, seed):
    """Normal values."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def compute(interpret, width, heads, tokens, valid, dtype="float32"):
    """The kernels' buffer and gradient, and the plain output and gradient."""
    rows, keys = len(valid) * tokens, make_keys(tokens, valid)
    qkv = jnp.asarray(draw(LAYERS, rows, 3 * width, seed=0), dtype)
    grad = jnp.asarray(draw(rows, width, seed=1), dtype)
    buffer = jnp.full((LAYERS, rows, width), 7, dtype)
    run = dict(heads=heads, interpret=interpret)
    layer = jnp.array([1, 0, 2, 0])  # attention knows but the first
    out = attention.attend(layer, qkv, keys, buffer, **run)
    back = attention.attend_backward(layer, qkv, keys, grad, **run)
    wide = [x.astype("float32") for x in (qkv[1], grad)]
    reference = functools.partial(plain, keys=keys, heads=heads)
    expected, pull = jax.vjp(reference, wide[0])
    return out, back, expected, pull(wide[1])[0]


@pytest.mark.parametrize("width, heads, tokens, valid", SHAPES)
def test_attention_is_softmax(interpret, width, heads, tokens, valid):
    out, back, expected, slope = compute(interpret, width, heads, tokens, valid)
    np.testing.assert_allclose(out[1], expected, atol=2e-6)
    np.testing.assert_allclose(back, slope, atol=5e-6)
    np.testing.assert_array_equal(out[jnp.array([0, 2])], 7)  # other layers' room
    images = np.asarray(back).reshape(len(valid), tokens, 3, width)
    for image, count in zip(images, valid):
        assert not np.any(image[count:, 1:])  # keys and values nobody attends to
        assert np.all(np.any(image[:count, 2], axis=-1))


def test_bfloat16_costs_its_rounding(interpret):
    shape = 128, 2, 16, (16, 9)
    out, back, expected, slope = compute(interpret, *shape, "bfloat16")
    assert out.dtype == back.dtype == jnp.bfloat16
    for ours, theirs in ((out[1], expected), (back, slope)):
        error = np.abs(np.float32(ours) - theirs).max() / np.abs(theirs).max()
        assert 1e-5 < error < 2e-2


def test_padding_and_values_out_of_reach_change_nothing(interpret):
    """12 tokens in rows for 16 or 24, and the rows beyond them full of large values."""
    results = []
    for tokens, filling in ((16, 0.0), (24, 1e3)):
        qkv = np.full((1, tokens, 3 * 128), filling, np.float32)
        qkv[0, :12] = draw(12, 3 * 128, seed=2)
        grad = np.zeros((tokens, 128), np.float32)
        grad[:12] = draw(12, 128, seed=3)
        keys, run = make_keys(tokens, [12]), dict(heads=4, interpret=interpret)
        out = jnp.zeros((1, tokens, 128))
        out = attention.attend(0, qkv, keys, out, **run)[0]
        back = attention.attend_backward(0, qkv, keys, grad, **run)
        results.append((out[:12], back[:12]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), *results)


def test_large_scores_do_not_overflow(interpret):
    """Scores of 1e4 where exp overflows: each query takes the one best value."""
    qkv = np.zeros((1, 8, 3 * 128), np.float32)
    qkv[0, :, :8] = qkv[0, :, 128:136] = 1e2 * np.eye(8)
    qkv[0, :, 256:] = draw(8, 128, seed=4)
    keys = make_keys(8, [8])
    out, run = jnp.zeros((1, 8, 128)), dict(heads=1, interpret=interpret)
    out = attention.attend(0, qkv, keys, out, **run)[0]
    np.testing.assert_allclose(out, qkv[0, :, 256:], rtol=1e-5)
    grad = jnp.ones((8, 128))
    back = attention.attend_backward(0, qkv, keys, grad, **run)
    expected = np.zeros((8, 384), np.float32)
    expected[:, 256:] = 1  # saturated: only values matter
    np.testing.assert_allclose(back, expected, atol=1e-5)
