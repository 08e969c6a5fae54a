"""The stack of fused blocks: its layouts, and what it keeps or computes again.

That its numbers are those of the plain blocks is tested in tests/models/fused/test_blocks.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from vit_ssl_jax.kernels import layer, parts, stack

DEPTH, IMAGES, TOKENS, WIDTH, WIDE, HEADS = 3, 2, 8, 16, 24, 2
STYLE = layer.BlockStyle(
    heads=HEADS,
    eps=1e-6,
    exact=True,
    dropout=0.2,
    keep=True,
    tile=8,
    dtype="float32",
)
SHAPES = {
    "norm1": {"scale": (WIDTH,), "bias": (WIDTH,)},
    "attn": {
        "qkv": {"kernel": (WIDTH, 3, HEADS, 8), "bias": (3, HEADS, 8)},
        "out": {"kernel": (HEADS, 8, WIDTH), "bias": (WIDTH,)},
    },
    "norm2": {"scale": (WIDTH,), "bias": (WIDTH,)},
    "mlp": {
        "up": {"kernel": (WIDTH, WIDE), "bias": (WIDE,)},
        "down": {"kernel": (WIDE, WIDTH), "bias": (WIDTH,)},
    },
}


@pytest.fixture(scope="module")
def blocks(tiny):
    """Parameters with a layer axis."""

    def shape(sizes):
        return jax.ShapeDtypeStruct((DEPTH, *sizes), jnp.float32)

    shapes = jax.tree.map(shape, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.map(jnp.asarray, tiny.random(shapes))


@pytest.fixture(scope="module")
def inputs():
    """Stream and gradient `[R D]`, keys, noise of both kinds."""
    rng = np.random.default_rng(0)
    stream, grad = np.float32(rng.normal(size=(2, IMAGES * TOKENS, WIDTH)))
    scales = np.float32(rng.choice([0, 2], (DEPTH, IMAGES, 2)))
    seeds = rng.integers(-(2**31), 2**31, (DEPTH, IMAGES)).astype(np.int32)
    keys = jnp.zeros((IMAGES, 8, TOKENS))
    return jnp.asarray(stream), jnp.asarray(grad), keys, (scales, seeds)


def both_ways(blocks, inputs, style, gather=None, reduce=None):
    """Output, then gradients of the parameters and of the input."""
    stream, grad, keys, noise = inputs

    @jax.jit
    def run(blocks):
        out, weights, kept = stack.forward(blocks, gather, stream, keys, noise, style)
        back = stack.backward(
            weights, reduce, kept, grad, keys=keys, noise=noise, style=style
        )
        return out, *back

    return run(blocks)


@pytest.fixture(scope="module")
def style(interpret):
    """What layers share."""
    return dataclasses.replace(STYLE, interpret=interpret)


@pytest.fixture(scope="module")
def kept(blocks, inputs, style):
    """Where all that the way back needs is kept."""
    return both_ways(blocks, inputs, style)


def assert_close(ours, theirs, atol=1e-6):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol),
        ours,
        theirs,
    )


def test_what_is_computed_again_is_what_was_kept(blocks, inputs, style, kept):
    style = dataclasses.replace(style, keep=False)
    assert_close(both_ways(blocks, inputs, style), kept)


def test_inference_is_the_way_forward(blocks, inputs, style, kept):
    stream, _, keys, noise = inputs
    out = stack.infer(blocks, None, stream, keys, noise, style)
    assert_close(out, kept[0])


def test_tiles_change_nothing(blocks, inputs, style, kept):
    style = dataclasses.replace(style, tile=16)
    assert_close(both_ways(blocks, inputs, style), kept, atol=1e-5)


def test_layers_are_gathered_and_reduced_one_by_one(blocks, inputs, style, kept):
    """Halved matrices that joining doubles, gradients that summing triples."""

    def of_kernels(function, tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, x: function(x) if path[-1].key == "kernel" else x, tree
        )

    halves = of_kernels(lambda x: x / 2, blocks)

    def join(sent, one):
        assert sent.shape == ()  # the layer's own
        assert all(len(x) == 1 for x in jax.tree.leaves(one))
        return of_kernels(lambda x: (sent - 1) * x, one)

    layer = jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), blocks)
    _, unravel = ravel_pytree(layer)

    def pack(grads):
        assert jax.tree.map(jnp.shape, grads) == SHAPES
        return ravel_pytree(grads)[0]

    gather = (
        lambda halves: jnp.full(DEPTH, 2.0),
        lambda x: x + 1,
        join,
        lambda block: {},
    )
    reduce = pack, lambda packed: 3 * packed, unravel
    out, grads, back = both_ways(halves, inputs, style, gather, reduce)
    assert_close((out, back), (kept[0], kept[2]))
    assert_close(grads, jax.tree.map(lambda x: 3 * x, kept[1]), atol=3e-6)


def test_the_gradient_is_that_of_the_way_forward(blocks, inputs, style, kept):
    """Along a random direction, by the difference of two outputs."""
    stream, grad, keys, noise = inputs
    rng = np.random.default_rng(3)
    along = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), blocks)
    step = 1e-3

    def value(sign):
        moved = jax.tree.map(lambda x, d: x + sign * step * d, blocks, along)
        out = stack.infer(moved, None, stream, keys, noise, style)
        return np.vdot(np.float64(out), np.float64(grad))

    slope = sum(map(np.vdot, jax.tree.leaves(kept[1]), jax.tree.leaves(along)))
    assert (value(1) - value(-1)) / (2 * step) == pytest.approx(slope, rel=2e-3)


def test_gradients_are_joined_as_weights_were_split(blocks):
    first, second = layer.split_weights(blocks)
    assert all(x.ndim == 3 for x in (*first, *second))
    qkv = blocks["attn"]["qkv"]["kernel"].reshape(DEPTH, WIDTH, -1)
    np.testing.assert_array_equal(first[2], qkv.swapaxes(1, 2))  # as memory has it
    for i in range(DEPTH):
        own = ([x[i] for x in part] for part in (first, second))
        joined = layer.join_gradients(own, HEADS)
        expected = jax.tree.map(lambda x, i=i: x[i], blocks)
        jax.tree.map(np.testing.assert_array_equal, joined, expected)


def test_only_kernels_are_rounded(blocks, style):
    style = dataclasses.replace(style, dtype="bfloat16")
    rounded = layer.round_kernels(blocks, style)

    def check(path, ours, theirs):
        kernel = path[-1].key == "kernel"
        expected = theirs.astype("bfloat16" if kernel else "float32")
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)

    jax.tree_util.tree_map_with_path(check, rounded, blocks)


def test_tokens_take_the_draws_of_their_image():
    keys = jnp.zeros((2, 8, 3))
    scales, seeds = jnp.array([[0.0, 2.0], [1.0, 0.5]]), jnp.array([7, -8], jnp.int32)
    ours, rows = layer.rows_of((scales, seeds), keys)
    np.testing.assert_array_equal(ours, np.repeat(scales, 3, axis=0))
    np.testing.assert_array_equal(rows, parts.row_seeds(seeds, 3).reshape(6, 1))
    assert layer.rows_of((None, None), keys) == []
    assert [x.shape for x in layer.rows_of((None, seeds), keys)] == [(6, 1)]
