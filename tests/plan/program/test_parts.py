"""Which part an instruction's cycles go to, on lines as the TPU compiler writes them."""

import collections
import types

import pytest

from vit_ssl_jax.plan.program import hlo, parts

BLOCK = "jit(step)/jvp(MAE)/encoder/encoder.encode/blocks/while/body/closed_call/block"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (f"{BLOCK}/attn/vmap(BTNH,BSNH->BNTS)/dot_general", "attention scores"),
        (f"{BLOCK}/attn/vmap()/exp", "attention scores"),
        (f"{BLOCK}/attn/qkv/dot_general", "projections"),
        (f"{BLOCK}/attn/out/reduce_sum", "projections"),
        (f"{BLOCK}/mlp/up/dot_general", "MLP"),
        (f"{BLOCK}/mlp/tanh", "MLP"),
        ("jit(step)/jvp(MAE)/blocks/shard_map/while/mix/pallas_call", "MLP"),
        (f"{BLOCK}/project_backward/pallas_call", "projections"),
        (f"{BLOCK}/attend/pallas_call", "attention scores"),
        (f"{BLOCK}/norm1/reduce_sum", "norms"),
        ("jit(step)/transpose(jvp(MAE))/encoder.encode/norm/mul", "norms"),
        ("jit(step)/views/jit(argsort)/sort", "views"),
        ("jit(step)/optimizer/mul", "optimizer"),
        ("jit(step)/ema/mul", "optimizer"),
        ("jit(step)/jvp(MAE)/encoder.embed/patch/dot_general", "rest"),
        ("jit(step)/jvp(jit(log_softmax))/log", "rest"),
        ("", "rest"),
    ],
)
def test_a_source_names_its_part(source, part):
    assert parts.scope_part(source) == part


TEXT = """HloModule step

%matmul (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %conv = f32[8,128]{1,0} convolution(%a, %a), metadata={op_name="x/attn/qkv/dot_general"}
  ROOT %sub = f32[8,128]{1,0} subtract(%conv, %a), metadata={op_name="x/norm1/sub"}
}

%move (b: f32[8,128]) -> f32[1,8,128] {
  %b = f32[8,128]{1,0} parameter(0)
  %i = s32[] constant(0)
  %j = s32[] add(%i, %i)
  ROOT %c = f32[1,8,128]{2,1,0} bitcast(%b)
}

%votes (d: f32[8,128]) -> f32[8,128] {
  %d = f32[8,128]{1,0} parameter(0)
  %e1 = f32[8,128]{1,0} exponential(%d), metadata={op_name="x/attn/vmap()/exp"}
  %e2 = f32[8,128]{1,0} divide(%e1, %e1), metadata={op_name="x/attn/vmap()/div"}
  %n = f32[8,128]{1,0} multiply(%e2, %d), metadata={op_name="x/norm2/mul"}
  ROOT %u = f32[2,8,128]{2,1,0} dynamic-update-slice(%d, %n), metadata={op_name="x/while/body/dynamic_update_slice"}
}

ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %f1 = f32[8,128]{1,0} fusion(%p), kind=kOutput, calls=%matmul, metadata={op_name="x/norm1/sub"}, backend_config={"estimated_cycles":"100"}
  %f2 = f32[1,8,128]{2,1,0} fusion(%f1), kind=kLoop, calls=%move, metadata={op_name="x/mlp/up/transpose"}, backend_config={"estimated_cycles":"10"}
  %f3 = f32[2,8,128]{2,1,0} fusion(%f1), kind=kLoop, calls=%votes, metadata={op_name="x/while/body/dynamic_update_slice"}, backend_config={"estimated_cycles":"20"}
  %k = f32[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="x/attn/pallas_call"}
  %k2 = f32[8,128]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", metadata={op_name="x/attn/pallas_call"}
  %sent = (f32[8,128]{1,0}, f32[8,128]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%p)
  %came = f32[8,128]{1,0:S(1)} copy-done(%sent)
  ROOT %o = f32[8,128]{1,0} add(%p, %k), metadata={op_name="x/optimizer/add"}, backend_config={"estimated_cycles":"3"}
}
"""
Cost = collections.namedtuple(
    "Cost", "name cycles bundles bytes grid_steps units spills"
)
COSTS = {name: Cost("flash", 1000, 900, 77, 8, {"MXU": 0.5}, 3) for name in ("k", "k2")}


def test_cycles_by_part_add_up_and_kernels_are_in_their_part():
    module = hlo.parse(TEXT)
    found = parts.cycles_by_part(module, parts.make_cost({"k": 1000, "k2": 1000}))
    assert list(found) == list(parts.PARTS)
    assert found == dict.fromkeys(parts.PARTS, 0) | {
        "projections": 100,  # by its matmul, not by what is fused onto it
        "copies": 10,  # whatever its name is, nothing is computed
        "attention scores": 20 + 2 * 1000,  # two of three arrays computed
        "optimizer": 3,
    }


def test_kernels_apart():
    (row,) = parts.kernel_rows(hlo.parse(TEXT), COSTS)
    assert row["name"] == "flash" and row["executions"] == 2
    assert row["part"] == "attention scores" and row["grid_steps"] == 8
    assert row["units"] == {"MXU": 0.5} and row["spills"] == 3


def test_a_kernel_without_a_cost_is_an_error():
    with pytest.raises(KeyError, match="k2"):
        parts.kernel_rows(hlo.parse(TEXT), {"k": COSTS["k"]})


def test_what_has_no_estimate_is_listed_with_its_bytes():
    found = parts.uncosted(hlo.parse(TEXT), {})
    size = 8 * 128 * 4
    assert found["custom-call tpu_custom_call"] == dict(times=2, bytes=2 * size)
    assert found["copy-start"]["times"] == 1
    assert set(found) == {"custom-call tpu_custom_call", "copy-start"}
    assert "custom-call tpu_custom_call" not in parts.uncosted(
        hlo.parse(TEXT), {"k": 1, "k2": 1}
    )


def test_cost_is_the_kernels_first():
    item = types.SimpleNamespace(name="k", cycles=None)
    assert parts.make_cost({"k": 5})(item) == 5
    assert parts.make_cost({})(item) == 0
