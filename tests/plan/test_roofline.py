"""Seconds of a program on a GPU against sums by hand, and against its own FLOPs."""

import jax
import jax.numpy as jnp
import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.plan import cards, roofline, topologies
from vit_ssl_jax.plan.program import collectives, hlo
from vit_ssl_jax.xla import flops

CARD = cards.CARDS["h100"]
TEXT = """HloModule step, is_scheduled=true

%fused (p.0: f32[12,512,256], p.1: s32[], p.2: f32[512,256]) -> f32[512,256] {
  %p.0 = f32[12,512,256]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,512,256]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,512,256}
  %flat = f32[512,256]{1,0} bitcast(%slice)
  %p.2 = f32[512,256]{1,0} parameter(2)
  ROOT %sum = f32[512,256]{1,0} add(%flat, %p.2)
}

%update (u.0: f32[12,512,256], u.1: f32[512,256], u.2: s32[]) -> f32[12,512,256] {
  %u.0 = f32[12,512,256]{2,1,0} parameter(0)
  %u.1 = f32[512,256]{1,0} parameter(1)
  %u.2 = s32[] parameter(2)
  %none = s32[] constant(0)
  %row = f32[1,512,256]{2,1,0} bitcast(%u.1)
  ROOT %put = f32[12,512,256]{2,1,0} dynamic-update-slice(%u.0, %row, %u.2, %none, %none)
}

ENTRY %main (a: bf16[512,1024], b: bf16[1024,256], s: f32[12,512,256], i: s32[], x: f32[512,256], q: bf16[8,96,4,64]) -> f32[] {
  %a = bf16[512,1024]{1,0} parameter(0)
  %b = bf16[1024,256]{1,0} parameter(1)
  %s = f32[12,512,256]{2,1,0} parameter(2)
  %i = s32[] parameter(3)
  %x = f32[512,256]{1,0} parameter(4)
  %q = bf16[8,96,4,64]{3,2,1,0} parameter(5)
  %mm = (bf16[512,256]{1,0}, s8[4194304]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %read = f32[512,256]{1,0} fusion(%s, %i, %x), kind=kLoop, calls=%fused
  %write = f32[12,512,256]{2,1,0} fusion(%s, %read, %i), kind=kLoop, calls=%update
  %att = (bf16[8,4,96,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax"
  %back = (bf16[8,4,96,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q, %q), custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %rs = ((f32[512,256]{1,0}), (f32[128,256]{1,0})) reduce-scatter-start(%x), channel_id=1, replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
  %done = f32[128,256]{1,0} reduce-scatter-done(%rs)
  ROOT %out = f32[] constant(0)
}
"""
ROWS, HEADS = 512 * 256, 8 * 4 * 96 * 96 * 64
MODULE = hlo.parse(TEXT)
ITEMS = {item.name: item for item in MODULE.computations[MODULE.entry]}
TYPES = roofline.types_of(MODULE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mm", 2 * 512 * 1024 * 256),
        ("att", 2 * 2 * HEADS),
        ("back", 5 * 2 * HEADS),
        ("read", 0),
    ],
)
def test_flops_by_hand(name, expected):
    assert roofline.flops(ITEMS[name], MODULE, TYPES) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # What matmuls work on and make, without the room that they may use.
        ("mm", 2 * (512 * 1024 + 1024 * 256 + ROWS)),
        ("read", 4 * (3 * ROWS + 1)),  # one layer of twelve, the other, the sum, %i
        ("write", 4 * (2 * ROWS + 1)),  # in place
    ],
)
def test_bytes_by_hand(name, expected):
    assert roofline.moved(ITEMS[name], MODULE, TYPES) == expected


def test_the_longer_of_two_counts_and_messages_are_apart():
    cost = roofline.make_cost(MODULE, CARD)
    rows = collectives.find(MODULE, dict(data=1, fsdp=4, tensor=1), cost, [0, 0, 1, 1])
    (row,) = rows
    assert row["kind"] == "reduce-scatter" and row["bytes"] == 4 * ROWS
    found = roofline.estimate(MODULE, CARD, rows)
    both = [
        max(
            roofline.flops(ITEMS[n], MODULE, TYPES) / CARD.peak_flops,
            roofline.moved(ITEMS[n], MODULE, TYPES) / CARD.hbm_bytes_per_second,
        )
        for n in ("mm", "read", "write", "att", "back")
    ]
    assert found["compute_seconds"] == pytest.approx(sum(both), abs=5e-9)
    assert sum(found["parts"].values()) == pytest.approx(found["compute_seconds"])
    wire = 4 * ROWS * 3 // 4
    # Two members a host have two shares of the network.
    network = 2 * CARD.dcn_bytes_per_second
    assert row["near"] == 2 and network < CARD.link_bytes_per_second
    assert found["message_seconds"] == pytest.approx(wire / network)
    assert found["exposed_seconds"] == pytest.approx(found["message_seconds"])
    assert (found["cudnn"], found["cublas"]) == (2, 1)
    assert found["matmul_flops"] == 2 * 512 * 1024 * 256 + 7 * 2 * HEADS
    near = [row | dict(between_slices=False)]
    faster = roofline.estimate(MODULE, CARD, near)["message_seconds"]
    assert faster == pytest.approx(wire / CARD.link_bytes_per_second)


def test_float32_matmuls_have_half_of_the_peak():
    """TF32, by NVIDIA's data sheets."""
    text = TEXT.replace("bf16[512,1024]", "f32[512,1024]")
    text = text.replace("bf16[1024,256]", "f32[1024,256]")
    module = hlo.parse(text)
    types = roofline.types_of(module)
    item = next(i for i in module.computations[module.entry] if i.name == "mm")
    assert roofline.peak(item, CARD, types) == CARD.peak_flops / 2
    assert roofline.peak(ITEMS["mm"], CARD, TYPES) == CARD.peak_flops


def test_flops_of_a_compiled_program_are_those_of_its_trace(users_compiler):
    """A chain of matmuls in a loop, whatever the compiler makes of it."""
    pytest.importorskip("jax_cuda13_plugin")
    devices, card = topologies.get_devices("h100:1")
    mesh = partition.make_mesh(dict(data=1, fsdp=1, tensor=1), devices)
    x = jax.ShapeDtypeStruct((1024, 512), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((3, 512, 512), jnp.bfloat16)

    def chain(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    with jax.set_mesh(mesh):
        lowered = jax.jit(chain).lower(x, w)
    module = hlo.parse(lowered.compile(compiler_options=cards.OPTIONS).as_text())
    found = roofline.estimate(module, card, [])
    assert found["flop_seconds"] * card.peak_flops == pytest.approx(
        flops.count(chain, x, w)
    )
    least = (3 * 2 * 1024 * 512 + 3 * 512 * 512) * 2 / card.hbm_bytes_per_second
    assert found["byte_seconds"] >= least
