"""Blocks: published numbers, loop, drop path, precision, initialisers."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import layers, stack

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="exact", init="mae", remat="none", unroll=1
)
BLOCK = stack.Block(heads=2, hidden=32, style=STYLE, train=False, collect=None)
EXPECTED = """
 .15502279  .20307755 1.00128582  .54809508  .93569432 .33222441 -.17149985 -.25854572
-.62836736 -1.16782218 -.92689431 -1.00864874 -.39996392 .09155835 .19754577 1.19593376
1.15775483 .51512759 .56428565 -.49204676 -.58129182 -1.05272479 -1.42572076 -.66404844
"""


@pytest.fixture(scope="module")
def block_params(torch_weights):
    """A block of width 8 with two heads, filled by the published rule."""
    names = torch_weights.block_shapes("block", 8)
    return torch_weights.block(torch_weights.fill(names), "block", heads=2)


def test_block_gives_the_published_numbers(block_params):
    x = jnp.sin(0.5 * jnp.arange(24.0)).reshape(1, 3, 8)
    y, collected = BLOCK.apply({"params": block_params}, x, None, None)
    expected = np.array(EXPECTED.split(), float).reshape(1, 3, 8)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    assert collected is None


def test_gelu_is_what_the_style_says(block_params):
    x = jnp.sin(0.5 * jnp.arange(24.0)).reshape(1, 3, 8)
    other = dataclasses.replace(STYLE, gelu="tanh")
    y, _ = BLOCK.clone(style=other).apply({"params": block_params}, x, None, None)
    error = np.abs(y - np.array(EXPECTED.split(), float).reshape(1, 3, 8)).max()
    assert 1e-6 < error < 4.7e-4


@pytest.fixture(scope="module")
def scanned(tiny):
    """Three scanned blocks, their parameters and an input `[2 5 16]`."""
    blocks = stack.Blocks(depth=3, heads=2, hidden=64, style=STYLE)
    x = np.float32(np.random.default_rng(0).normal(size=(2, 5, 16)))
    init = functools.partial(blocks.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)["params"]
    return blocks, tiny.random(shapes), x


def test_scan_is_a_loop_over_layers(scanned):
    blocks, params, x = scanned
    y, collected = blocks.apply({"params": params}, x, False, collect=stack.whole)
    block = stack.Block(2, 64, STYLE, train=False, collect=None)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], params["block"])
        x, _ = block.apply({"params": one}, x, None, None)
        np.testing.assert_allclose(collected[i], x, atol=1e-5)
    np.testing.assert_allclose(y, x, atol=1e-5)


def test_layers_are_initialised_differently(scanned):
    blocks, _, x = scanned
    kernel = blocks.init(jax.random.key(1), x, False)["params"]["block"]["mlp"]["up"]
    assert kernel["kernel"].shape == (3, 16, 64)
    assert np.abs(kernel["kernel"][0] - kernel["kernel"][1]).max() > 0.1


def output_and_gradient(blocks, params, x):
    """Output of the blocks and the gradient of a fixed functional of it."""

    def loss(params):
        y = blocks.apply({"params": params}, x, False)[0]
        return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.fixture(scope="module")
def plain(scanned):
    """Without remat, one block an iteration."""
    return output_and_gradient(*scanned)


@pytest.mark.parametrize("remat, unroll", [("dots", 1), ("full", 1), ("dots", 9)])
def test_remat_and_unroll_change_no_number(scanned, plain, remat, unroll):
    blocks, params, x = scanned
    style = dataclasses.replace(STYLE, remat=remat, unroll=unroll)
    ours = output_and_gradient(blocks.clone(style=style), params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, plain)


def test_a_branch_is_dropped_whole_or_scaled(block_params):
    """With the MLP at zero a block adds its attention branch or nothing."""
    rate, count = 0.25, 4000
    block = BLOCK.clone(train=True)
    x = jnp.broadcast_to(jnp.sin(jnp.arange(24.0)).reshape(1, 3, 8), (count, 3, 8))
    params = block_params | {"mlp": jax.tree.map(jnp.zeros_like, block_params["mlp"])}
    y, _ = block.apply({"params": params}, x, None, None)
    branch = (y - x)[0]  # no rate: nothing is dropped
    rngs = {"dropout": jax.random.key(2)}
    y, _ = block.apply({"params": params}, x, jnp.float32(rate), None, rngs=rngs)
    kept = np.any(np.asarray(y != x), axis=(1, 2))
    np.testing.assert_allclose((y - x)[kept][0], branch / (1 - rate), atol=1e-6)
    np.testing.assert_allclose(
        (y - x)[kept], np.broadcast_to((y - x)[kept][:1], (kept.sum(), 3, 8)), atol=1e-6
    )
    deviation = np.sqrt(rate * (1 - rate) / count)
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation


def test_drop_path_grows_linearly_with_depth(scanned):
    count, droppath = 3000, 0.6
    blocks, params, _ = scanned
    x = np.float32(np.random.default_rng(1).normal(size=(count, 2, 16)))
    rngs = {"dropout": jax.random.key(2)}
    _, after = blocks.clone(droppath=droppath).apply(
        {"params": params}, x, True, collect=stack.whole, rngs=rngs
    )
    before = np.concatenate([x[None], after[:-1]])
    same = np.all(before == np.asarray(after), axis=(2, 3)).mean(1)
    # A block leaves a sample as it is where both of its branches are dropped.
    for rate, share in zip((0.0, 0.3, 0.6), same):
        deviation = np.sqrt(rate**2 * (1 - rate**2) / count)
        assert abs(share - rate**2) <= 5 * deviation


def test_drop_path_is_off_in_evaluation(scanned):
    blocks, params, x = scanned
    expected, _ = blocks.apply({"params": params}, x, False)
    y, _ = blocks.clone(droppath=0.5).apply({"params": params}, x, False)
    np.testing.assert_array_equal(y, expected)


def operations(jaxpr):
    """All equations, inner ones too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from operations(inner)


def test_bfloat16_keeps_softmax_norm_and_residual_in_float32(scanned):
    blocks, params, x = scanned
    half = blocks.clone(style=dataclasses.replace(STYLE, dtype="bfloat16"))
    expected, _ = blocks.apply({"params": params}, x, False)
    y, _ = half.apply({"params": params}, x, False)
    assert y.dtype == jnp.float32
    scale = np.abs(expected).max()
    assert 1e-5 < np.abs(y - expected).max() / scale < 3e-2

    jaxpr = jax.make_jaxpr(lambda p: half.apply({"params": p}, x, False)[0])(params)
    found = {"exp": set(), "rsqrt": set(), "dot_general": set()}
    for eqn in operations(jaxpr.jaxpr):
        if eqn.primitive.name in found:
            found[eqn.primitive.name] |= {v.aval.dtype.name for v in eqn.invars}
    assert found["exp"] == {"float32"}  # softmax
    assert found["rsqrt"] == {"float32"}  # LayerNorm
    assert "bfloat16" in found["dot_general"]


def draw(init, fan_in=768, shape=(768, 3, 12, 64)):
    """Weights of a fused projection and of the patch embedding, and their biases."""
    initial = layers.INITS[init]
    layer = layers.dense(shape[1:], dataclasses.replace(STYLE, init=init), "qkv").init(
        jax.random.key(0), jnp.zeros((1, shape[0]))
    )["params"]
    patch = initial.patch(fan_in)(jax.random.key(1), (fan_in, 768), jnp.float32)
    bias = initial.patch_bias(fan_in)(jax.random.key(2), (768,), jnp.float32)
    token = initial.token(jax.random.key(3), (1, 1, 4096), jnp.float32)
    return (np.asarray(x) for x in (layer["kernel"], layer["bias"], patch, bias, token))


UNIFORM, NORMAL = np.sqrt(3), np.inf
# Family: (std, largest / std) of the fused projection, patch kernel, its bias, token.
FAMILIES = {
    "mae": [(0.04419, UNIFORM), (0.0625, UNIFORM), (0.0361, UNIFORM), (0.02, NORMAL)],
    "ijepa": [(0.02, NORMAL), (0.02, NORMAL), (0, 0), (0.02, NORMAL)],
    "timm": [(0.02, NORMAL), (0.0361, UNIFORM), (0.0361, UNIFORM), (0.02, NORMAL)],
    "mmpretrain": [(0.02, NORMAL), (0.02, NORMAL), (0.0361, UNIFORM), (0.02, NORMAL)],
    "big_vision": [(0.04419, UNIFORM), (0.0361, 2 / 0.87963), (0, 0), (0, 0)],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_initialisers_of_a_family(family):
    """Uniform rows give the bound, the others the standard deviation."""
    qkv, qkv_bias, *others = draw(family)
    assert not np.any(qkv_bias)
    for values, (size, reach) in zip([qkv, *others], FAMILIES[family]):
        std = size / np.sqrt(3) if reach == UNIFORM else size
        tolerance = 5 / np.sqrt(2 * values.size)
        assert values.std() == pytest.approx(std, rel=tolerance + 2e-3)
        assert abs(values.mean()) <= 5 * std / np.sqrt(values.size)
        if reach == NORMAL:
            assert np.abs(values).max() > 3 * std
        elif size:
            assert 0.97 * reach * std < np.abs(values).max() < 1.002 * reach * std


@pytest.mark.parametrize("dtype, error", [("float32", 5e-7), ("bfloat16", 2**-8)])
def test_gelu_and_its_slope(dtype, error):
    """Relative to x: x Phi(x), and Phi(x) + x phi(x), Phi by the standard library."""
    x = np.linspace(-6, 6, 97, dtype=np.float32)  # exact in bfloat16
    ours, slope = jax.vmap(jax.value_and_grad(lambda x: layers.gelu(x, STYLE)))(
        jnp.asarray(x, dtype)
    )
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    scale = np.maximum(np.abs(x), 1)
    assert np.abs((np.float64(ours) - x * below) / scale).max() < error
    assert np.abs(np.float64(slope) - below - x * density).max() < 2 * error


def saved_types(jaxpr):
    """Types of what scans hand on from layer to layer or keep, by jax's own names."""
    scans = [eqn for eqn in operations(jaxpr) if eqn.primitive.name == "scan"]
    assert len(scans) == 2  # forwards and backwards
    carried = scans[0].params["num_carry"]
    return {v.aval.dtype.name for v in scans[0].outvars[carried:]}


def test_on_a_cpu_bfloat16_is_kept_as_bits_and_matmuls_are_not_repeated(scanned):
    blocks, params, x = scanned
    low = blocks.clone(style=dataclasses.replace(STYLE, dtype="bfloat16"))

    def loss(params):
        return jnp.sum(low.apply({"params": params}, x, False)[0])

    jaxpr = jax.make_jaxpr(jax.grad(loss))(params).jaxpr
    assert saved_types(jaxpr) <= {"uint16", "float32"}
    assert "uint16" in saved_types(jaxpr)
    products = [e for e in operations(jaxpr) if e.primitive.name == "dot_general"]
    # 4 layers and 2 products of attention; twice that backwards; the scores again, and
    # attention's output, which is dead code that XLA removes.
    assert len(products) <= 3 * 6 + 2
