"""Names and bytes of arrays, on a program whose memory is known."""

from vit_ssl_jax.plan.program import buffers, hlo

TEXT = """HloModule step, input_output_alias={ {0}: (0, {}, may-alias), {1}: (2, {}, may-alias) }

%stack (a: f32[12,8,128], b: s32[], c: f32[8,128]) -> f32[12,8,128] {
  %a = f32[12,8,128]{2,1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = f32[8,128]{1,0} parameter(2)
  %t = f32[8,128]{1,0} tanh(%c), metadata={op_name="block/mlp/tanh"}
  %r = f32[1,8,128]{2,1,0} bitcast(%t)
  ROOT %u = f32[12,8,128]{2,1,0} dynamic-update-slice(%a, %r, %b), metadata={op_name="while/dynamic_update_slice"}
}

ENTRY %main (p0: f32[8,128], p1: f32[16,128], p2: s32[]) -> (f32[8,128], s32[]) {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="state.params[\\'blocks\\'][\\'w\\']"}
  %p1 = f32[16,100]{1,0:T(8,128)} parameter(1), metadata={op_name="state.opt_state[0].mu[\\'w\\']"}
  %p2 = s32[]{:T(128)} parameter(2), metadata={op_name="state.step"}
  %p3 = u8[4,4]{1,0} parameter(3), metadata={op_name="batch[\\'image\\']"}
  %fresh = f32[12,8,128]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  %f = f32[12,8,128]{2,1,0} fusion(%fresh, %p2, %p0), kind=kLoop, calls=%stack, metadata={op_name="while/dynamic_update_slice"}
  %big = bf16[100,128]{1,0} multiply(%p1, %p1), metadata={op_name="block/mlp/mul"}
  %vmem = f32[900,900]{1,0:S(1)} add(%big, %big), metadata={op_name="on/chip"}
  %new = f32[999,128]{1,0} subtract(%p0, %p0), metadata={op_name="optimizer/sub"}
  ROOT %tuple = (f32[8,128]{1,0}, s32[]) tuple(%new, %p2)
}
"""


def test_arguments_by_path_with_padding():
    rows = buffers.arguments(hlo.parse(TEXT))
    assert [row["name"] for row in rows] == [
        "state.opt_state[0].mu/w",
        "state.params/blocks/w",
        "state.step",
        "batch/image",
    ]
    assert rows[0]["bytes"] == 16 * 128 * 4  # 100 columns lie in 128
    assert rows[3]["bytes"] == 16


def test_temporaries_are_named_by_what_fills_them():
    rows = buffers.temporaries(hlo.parse(TEXT), 10)
    assert [(row["name"], row["array"]) for row in rows] == [
        ("block/mlp/tanh", "f32[12,8,128]"),  # the slices' source, not the stack's
        ("block/mlp/mul", "bf16[100,128]"),
    ]  # neither what is on the chip, nor the new state, which lies where the old did
    assert rows[0]["bytes"] == 12 * 8 * 128 * 4
    assert len(buffers.temporaries(hlo.parse(TEXT), 1)) == 1


def test_what_of_the_state_is_not_donated():
    assert buffers.not_donated(hlo.parse(TEXT)) == ["state.opt_state[0].mu/w"]
    donated = TEXT.replace(
        "(2, {}, may-alias) }", "(2, {}, must-alias), {2}: (1, {}, may-alias) }"
    )
    assert buffers.not_donated(hlo.parse(donated)) == []
