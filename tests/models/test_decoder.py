"""The decoder: order, places and what may see what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import decoder, layers, stack
from vit_ssl_jax.ops import posemb

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="exact", init="mae", remat="none", unroll=1
)
CONTEXT_IDS = np.array([[0, 4, 5], [2, 1, 3]])
IDS = np.array([[1, 2, 3], [0, 4, 5]])


@pytest.fixture(scope="module")
def run(tiny):
    """Jitted `(context, context_ids, ids, valid=None) -> [B M 5]`, class token first."""
    model = decoder.Decoder(
        grid=(2, 3),
        width=16,
        hidden=64,
        depth=2,
        heads=4,
        features=5,
        cls=True,
        style=STYLE,
    )
    init = functools.partial(model.init, train=False)
    inputs = (context(), CONTEXT_IDS, IDS)
    params = tiny.random(jax.eval_shape(init, jax.random.key(0), *inputs)["params"])

    @jax.jit
    def run(context, context_ids, ids, valid=None):
        return model.apply({"params": params}, context, context_ids, ids, False, valid)

    run.model, run.params = model, params
    return run


def context():
    """A class token and three context tokens `[2 4 8]`."""
    return np.float32(np.random.default_rng(0).normal(size=(2, 4, 8)))


def test_shape(run):
    out = run(context(), CONTEXT_IDS, IDS)
    assert out.shape == (2, 3, 5) and out.dtype == jnp.float32


def test_order_of_context_and_queries_does_not_matter(run):
    out = run(context(), CONTEXT_IDS, IDS)
    order = [2, 0, 1]
    moved = context()[:, [0, 3, 1, 2]]  # the class token stays first
    np.testing.assert_allclose(run(moved, CONTEXT_IDS[:, order], IDS), out, atol=1e-5)
    turned = run(context(), CONTEXT_IDS, IDS[:, order])
    np.testing.assert_allclose(turned, out[:, order], atol=1e-5)


def test_it_is_the_decoder_in_raster_order(run):
    """MAE's way: mask tokens scattered among the context, positions added to all."""
    params, table = run.params, posemb.sincos((2, 3), 16)
    dense = params["embed"]
    embedded = context() @ dense["kernel"] + dense["bias"][None, None]
    x = np.empty((2, 7, 16), np.float32)
    x[:, 0] = embedded[:, 0]
    for row in range(2):
        x[row, 1 + IDS[row]] = params["mask_token"][0, 0]
        x[row, 1 + CONTEXT_IDS[row]] = embedded[row, 1:]
    x[:, 1:] += table
    blocks = stack.Blocks(depth=2, heads=4, hidden=64, style=STYLE)
    y, _ = blocks.apply({"params": params["blocks"]}, x, False)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = np.asarray(y) * params["norm"]["scale"] + params["norm"]["bias"]
    y = y @ params["head"]["kernel"] + params["head"]["bias"]
    expected = np.stack([y[row, 1 + IDS[row]] for row in range(2)])
    np.testing.assert_allclose(run(context(), CONTEXT_IDS, IDS), expected, atol=2e-5)


def test_invalid_context_and_queries_are_not_seen(run):
    valid = np.array([[1, 1, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1]], bool)
    out = run(context(), CONTEXT_IDS, IDS, valid)
    other = np.where(valid[:, :3], 0, 9.0)[..., None].astype(np.float32)
    changed = context()
    changed[:, 1:] += other
    ids = np.where(valid[:, 3:], IDS, 0)
    again = run(changed, CONTEXT_IDS, ids, valid)
    np.testing.assert_array_equal(out[valid[:, 3:]], again[valid[:, 3:]])
    alone = run(context()[:1, [0, 1, 2]], CONTEXT_IDS[:1, :2], IDS[:1, :2])
    np.testing.assert_allclose(out[0, :2], alone[0], atol=1e-5)
