"""Where blocks are fused, in tiles of which size, and what they draw."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from vit_ssl_jax import partition
from vit_ssl_jax.kernels import layer
from vit_ssl_jax.models import layers, stack
from vit_ssl_jax.models.fused import blocks as fused

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="tanh", init="timm", remat="none", unroll=1
)


def under(kind="TPU v5 lite", sizes=(4, 2, 1)):
    """A mesh of devices that needn't be there."""
    platform = "tpu" if kind.startswith("TPU") else "cpu"
    device = AbstractDevice(kind, 1, platform)
    axes = partition.MESH_AXES, (AxisType.Auto,) * 3
    return jax.sharding.use_abstract_mesh(
        AbstractMesh(sizes, *axes, abstract_device=device)
    )


def low(depth=2, heads=2, hidden=256, droppath=0.0, dropout=0.0, **style):
    """Blocks in bfloat16."""
    style = dataclasses.replace(STYLE, **dict(dtype="bfloat16") | style)
    return stack.Blocks(depth, heads, hidden, style, droppath, dropout)


def test_the_choice_carries_the_style():
    with under():
        ours = fused.choose(low(dropout=0.1), (16, 50, 128))
        # Of so few columns kernels ask for more than is counted.
        assert fused.needed(112, 128, low().hidden) < fused.ASKED
        room = fused.ASKED + (4 << 20)
        assert ours == layer.BlockStyle(
            heads=2, eps=1e-6, exact=False, dropout=0.1, keep=True, tile=112, vmem=room
        )  # two images of 56 rows on each of eight devices
        assert fused.choose(low(gelu="exact"), (16, 50, 128)).exact
        assert fused.choose(low(remat="dots"), (16, 50, 128)).keep
        assert not fused.choose(low(remat="full"), (16, 50, 128)).keep
        assert not ours.unroll and not ours.interpret and ours.dtype == "bfloat16"
        base = fused.choose(low(hidden=3072), (64, 200, 768))
        assert base.vmem == fused.needed(base.tile, 768, 3072) + (4 << 20)
    with under("TPU v6 lite"):
        assert fused.choose(low(), (16, 50, 128)).unroll
        # ViT-L's loops would hold more at once than there is.
        large = fused.choose(low(hidden=4096), (64, 200, 1024))
        assert not large.unroll and large.tile == 320
        assert large.vmem == (124 - 20) << 20


# What differs from blocks that kernels run: device, mesh, shape, blocks.
BASE = dict(kind="TPU v5 lite", sizes=(4, 2, 1), shape=(16, 50, 128), blocks=low())
# MLPs of a ViT-B, H and e on chips with 128 and with 64 MiB beside a core.
LARGE = {
    size: dict(shape=(16, 200, width), blocks=low(hidden=hidden))
    for size, width, hidden in (
        ("B", 768, 3072),
        ("H", 1280, 5120),
        ("e", 1792, 15360),
    )
}
RULES = [
    ({}, True),
    (dict(kind="TPU v5"), True),
    (dict(kind="TPU7x"), True),
    (dict(kind="TPU v4"), False),
    (dict(kind="cpu"), False),
    (dict(kind="NVIDIA H100 80GB HBM3"), False),
    (dict(blocks=low(dtype="float32")), False),
    (dict(sizes=(2, 2, 2)), False),
    (dict(shape=(12, 50, 128)), False),  # 12 images on 8 devices
    (dict(shape=(16, 640, 128)), True),
    (dict(shape=(16, 641, 128)), False),
    (dict(shape=(16, 50, 192)), False),
    (dict(blocks=low(hidden=192)), False),
    (LARGE["B"], True),
    (LARGE["H"], True),
    (LARGE["e"], False),
    (LARGE["B"] | dict(kind="TPU7x"), True),
    (LARGE["H"] | dict(kind="TPU7x"), False),
    (LARGE["B"] | dict(kind="TPU v6 lite"), True),
    (LARGE["H"] | dict(kind="TPU v6 lite"), True),
]


@pytest.mark.parametrize("changes, expected", RULES)
def test_kernels_run_where_they_can(changes, expected):
    case = BASE | changes
    with under(case["kind"], case["sizes"]):
        chosen = fused.choose(case["blocks"], case["shape"])
    assert (chosen is not None) == expected
    assert fused.choose(case["blocks"], case["shape"]) is None  # without a mesh


@given(
    images=st.integers(1, 300),
    eights=st.integers(1, 80),
    width=st.sampled_from([128, 384, 768, 1024]),
    room=st.sampled_from([5, 40, 60, 124]),
)
@settings(max_examples=200, deadline=None)
def test_tiles_divide_fit_and_fill_the_matrix_unit(images, eights, width, room):
    rows, hidden, room = 8 * images * eights, 4 * width, room << 20
    tile = fused.choose_tile(rows, width, hidden, room)
    # Weights of the MLP's way back: bfloat16, and float32 sums.
    weights = (width**2 + 2 * width * hidden) * (2 + 4)
    if tile is None:
        # Too little room for the least of 64 rows or more, or no such divisor.
        least = next((t for t in range(64, 513, 8) if rows % t == 0), rows)
        needed = weights + least * (52 * width + 6 * hidden)
        assert needed > room or rows < 128 or least == rows > 512
        return
    assert rows % tile == 0 and tile % 8 == 0 and tile <= 512
    assert weights < room
    if rows >= 128:
        # None of the smaller ones, which fit as well, wastes less of passes of 128.
        passes = {
            t: rows // t * -(-t // 128) for t in range(8, tile, 8) if rows % t == 0
        }
        assert rows // tile * -(-tile // 128) <= min(passes.values(), default=rows)


@pytest.mark.parametrize(
    "rows, expected",
    # 64 images of 200; 8 of 200, where 320 is 5/6 of three passes; few rows; a prime.
    [(12800, 512), (1600, 320), (112, 112), (8 * 521, None)],
)
def test_tiles_by_hand(rows, expected):
    assert fused.choose_tile(rows, 768, 3072, 124 << 20) == expected


def draw(blocks, train, count=4000, key=0):
    """What `draw_noise` gives these blocks."""
    return blocks.apply(
        {},
        method=lambda module: fused.draw_noise(module, count, train),
        rngs={"dropout": jax.random.key(key)},
    )


def test_noise_is_drawn_for_every_layer_and_image():
    blocks = low(depth=3, droppath=0.4, dropout=0.1)
    scales, seeds = map(np.asarray, draw(blocks, True))
    assert scales.shape == (3, 4000, 2) and seeds.shape == (3, 4000)
    for rate, drawn in zip((0.0, 0.2, 0.4), scales):
        values = [1.0] if rate == 0 else [0, 1 / (1 - rate)]
        np.testing.assert_allclose(np.unique(drawn), values, rtol=1e-6)
        deviation = np.sqrt(rate * (1 - rate) / 8000)
        assert abs((drawn == 0).mean() - rate) <= 5 * deviation
    drops = [scales[1, :, 0], scales[1, :, 1], scales[2, :, 0], scales[2, :, 1]]
    off = np.corrcoef(drops)[np.triu_indices(4, 1)]
    assert np.abs(off).max() < 5 / np.sqrt(4000)
    assert len(np.unique(seeds)) > 0.999 * seeds.size
    assert np.any(seeds != draw(blocks, True, key=1)[1])


def test_nothing_is_drawn_without_need():
    assert draw(low(droppath=0.4, dropout=0.1), False) == (None, None)
    assert draw(low(), True) == (None, None)
    assert draw(low(droppath=0.4), True)[1] is None
    assert draw(low(dropout=0.1), True)[0] is None


def traced(blocks, train=True, **call):
    """Text of the gradient under the mesh in use, and the parameters' shapes."""
    x = jax.ShapeDtypeStruct((8, 12, 128), jnp.float32)
    init = functools.partial(blocks.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)

    def loss(variables, x):
        rngs = {"dropout": jax.random.key(1)}
        return blocks.apply(variables, x, train, rngs=rngs, **call)[0].sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(variables, x))
    return text, jax.tree.map(jnp.shape, variables)


def test_blocks_are_fused_on_a_tpu_and_nowhere_else():
    blocks = low(droppath=0.1, dropout=0.1)
    with under():
        text, shapes = traced(blocks)
        collected, _ = traced(blocks, collect=stack.whole)
        wide, _ = traced(blocks.clone(style=STYLE))
    for name in ("project", "attend", "mix"):
        assert f"name={name}\n" in text or f"name={name} " in text
        assert f"{name}_backward" in text
    assert "pallas_call" not in collected and "pallas_call" not in wide
    with under("cpu"):
        plain, same = traced(blocks)
    assert "pallas_call" not in plain and shapes == same
