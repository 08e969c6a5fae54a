"""Fused blocks are the plain ones: numbers, gradients, layouts."""

import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.kernels import simulator
from vit_ssl_jax import partition
from vit_ssl_jax.kernels import layer, parts
from vit_ssl_jax.models import layers, stack
from vit_ssl_jax.models.fused import blocks as fused
from vit_ssl_jax.models.fused import exchange

DEPTH, HEADS, WIDTH, WIDE, IMAGES, TOKENS = 3, 2, 16, 24, 4, 11
STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="tanh", init="timm", remat="none", unroll=1
)
BLOCKS = stack.Blocks(DEPTH, HEADS, WIDE, STYLE)
FAST = layer.BlockStyle(
    heads=HEADS,
    eps=1e-6,
    exact=False,
    dropout=0.25,
    keep=True,
    tile=8,
    dtype="float32",
)
interpret, no_race = simulator.interpret, simulator.no_race  # fixtures
VALID = np.arange(TOKENS)[None] < np.array([[11], [5], [7], [1]])


@pytest.fixture(scope="module")
def arrays(tiny):
    """Parameters, tokens, a gradient, and noise of both kinds."""
    rng = np.random.default_rng(0)
    x, grad = np.float32(rng.normal(size=(2, IMAGES, TOKENS, WIDTH)))
    shapes = jax.eval_shape(
        functools.partial(BLOCKS.init, train=False), jax.random.key(0), x
    )["params"]
    scales = np.float32(rng.choice([0, 1.25], (DEPTH, IMAGES, 2), p=[0.3, 0.7]))
    seeds = rng.integers(-(2**31), 2**31, (DEPTH, IMAGES)).astype(np.int32)
    values = types.SimpleNamespace(params=tiny.random(shapes), x=x, grad=grad)
    values.noise = scales, seeds
    return values


def with_gradients(function, arrays, mesh=None):
    """`function(params, x)`: its value, gradients of parameters and of x; jitted."""

    def run(params, x, grad):
        y, pull = jax.vjp(function, params, x)
        return y, *pull(grad)

    if mesh is None:
        return jax.jit(run)(arrays.params, arrays.x, arrays.grad)
    params = jax.device_put(arrays.params, partition.shardings(arrays.params, mesh))
    batch = jax.device_put((arrays.x, arrays.grad), partition.batch_sharding(mesh))
    with jax.set_mesh(mesh):
        return jax.jit(run)(params, *batch)


def assert_close(ours, theirs, atol=2e-5):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol),
        jax.device_get(ours),
        jax.device_get(theirs),
    )


@pytest.mark.parametrize("valid", [None, VALID])
def test_fused_blocks_are_the_plain_ones(interpret, arrays, monkeypatch, valid):
    """Through `Blocks` itself, told to run kernels; with nothing drawn."""

    def apply(params, x):
        return BLOCKS.apply({"params": params}, x, True, valid)[0]

    plain = with_gradients(apply, arrays)
    fast = dataclasses.replace(FAST, dropout=0.0, interpret=interpret)
    monkeypatch.setattr(fused, "choose", lambda blocks, shape: fast)
    ours = with_gradients(lambda *args: apply(*args), arrays)
    assert_close(ours, plain)
    text = str(jax.make_jaxpr(apply)(arrays.params, arrays.x))
    assert "pallas_call" in text
    inference = apply(arrays.params, arrays.x)  # without a gradient: nothing is kept
    assert_close(inference, plain[0])


def plain_block(params, x, valid, scales, seeds):
    """A pre-norm block on `[B N D]` with the factors given: two branches."""

    def drop(y, site):
        rows = parts.row_seeds(seeds, fused.padded(TOKENS))[:, :TOKENS].reshape(-1, 1)
        kept = parts.kept(rows, site, 0, y.shape[-1], FAST.dropout)
        return y * kept.reshape(y.shape)

    def norm(name, y):
        module = nn.LayerNorm(epsilon=FAST.eps, use_fast_variance=False)
        return module.apply({"params": params[name]}, y)

    def dense(y, weights, axes):
        return jnp.einsum(axes, y, weights["kernel"]) + jnp.expand_dims(
            weights["bias"], (0, 1)
        )

    attn, mlp = params["attn"], params["mlp"]
    q, k, v = jnp.moveaxis(
        dense(norm("norm1", x), attn["qkv"], "bnd,dsae->bnsae"), 2, 0
    )
    scores = jnp.einsum("bqae,bkae->baqk", q, k) / np.sqrt(WIDTH // HEADS)
    weights = jax.nn.softmax(jnp.where(valid[:, None, None], scores, -np.inf))
    y = jnp.einsum("baqk,bkae->bqae", weights, v)
    scales = scales[:, :, None, None]
    x = x + drop(dense(y, attn["out"], "bnae,aed->bnd"), 0) * scales[:, 0]
    y = drop(jax.nn.gelu(dense(norm("norm2", x), mlp["up"], "bnd,df->bnf")), 1)
    return x + drop(dense(y, mlp["down"], "bnf,fd->bnd"), 2) * scales[:, 1]


@pytest.fixture(scope="module")
def noisy(arrays):
    """Plain blocks with noise, and some tokens invalid."""

    def apply(params, x):
        for i in range(DEPTH):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], params["block"])
            x = plain_block(one, x, VALID, *(noise[i] for noise in arrays.noise))
        return x

    return with_gradients(apply, arrays)


@pytest.mark.parametrize(
    "data, fsdp, keep", [(1, 1, True), (4, 1, True), (2, 2, False), (1, 4, True)]
)
def test_devices_share_the_images(interpret, arrays, noisy, data, fsdp, keep):
    """Each draws its images' noise; gradients end where the moments are."""
    sizes = dict(data=data, fsdp=fsdp, tensor=1)
    mesh = partition.make_mesh(sizes, jax.devices()[: data * fsdp])
    style = dataclasses.replace(FAST, keep=keep, interpret=interpret)

    def apply(params, x):
        return fused.apply(params["block"], x, VALID, arrays.noise, style)

    ours = with_gradients(apply, arrays, mesh)
    assert_close(ours, noisy)
    layout = partition.shardings(arrays.params, mesh, partition.MOMENTS)

    def check(grad, sharding):
        assert grad.sharding.is_equivalent_to(sharding, grad.ndim)

    jax.tree.map(check, ours[1], layout)
    kernel = ours[1]["block"]["mlp"]["up"]["kernel"]
    shard = kernel.addressable_shards[0].data.shape
    assert np.prod(shard) == DEPTH * WIDTH * WIDE // (data * fsdp)


@pytest.mark.parametrize(
    ("heads", "width", "expected"),
    [
        (2, 16, P(None, "fsdp", None, "data")),  # heads, and columns in memory
        (3, 48, P(None, None, "fsdp", "data")),  # the width of heads
        (3, 24, P(None, None, None, ("fsdp", "data"))),
        (4, 32, P(None, ("fsdp", "data"), None, None)),
    ],
)
def test_a_layer_is_joined_and_its_gradients_are_summed_where_moments_are(
    tiny, heads, width, expected
):
    """On 2 x 2 devices, each with parameters' shards and gradients of its own."""
    mesh = partition.make_mesh(dict(data=2, fsdp=2, tensor=1), jax.devices()[:4])
    model = stack.Blocks(DEPTH, heads, WIDE, STYLE)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False),
        jax.random.key(0),
        jnp.zeros((1, 4, width)),
    )
    blocks = tiny.random(shapes["params"]["block"])
    rng = np.random.default_rng(0)
    own = jax.tree.map(
        lambda x: jnp.float32(rng.normal(size=(4, *x.shape[1:]))), blocks
    )
    with jax.set_mesh(mesh):
        layout = exchange.Layout(blocks, (None, None))
        assert layout.grads["attn"]["out"]["kernel"] == expected

        def local(blocks, own):
            sent = layout.send(layout.pack(blocks)[1])
            joined = layout.join(sent, jax.tree.map(lambda x: x[1:2], blocks))
            packed = layout.pack_gradients(jax.tree.map(lambda x: x[0], own))
            summed = layout.keep_own(layout.sum_up(packed))
            return joined, jax.tree.map(lambda x: x[None], summed)

        each = jax.tree.map(lambda _: partition.BATCH, own)
        outs = jax.tree.map(lambda _: P(), own), layout.grads
        joined, summed = jax.jit(
            jax.shard_map(
                local, in_specs=(layout.blocks, each), out_specs=outs, check_vma=False
            )
        )(jax.device_put(blocks, partition.shardings(blocks, mesh)), own)
    second = jax.tree.map(lambda x: x[1:2], blocks)
    jax.tree.map(np.testing.assert_array_equal, joined, second)
    assert_close(summed, jax.tree.map(lambda x: x.sum(0, keepdims=True), own), 1e-6)
