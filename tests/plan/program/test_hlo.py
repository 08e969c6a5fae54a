"""The parser, on programs small enough to count by hand."""

import pytest

from vit_ssl_jax.plan.program import hlo

TEXT = """HloModule step, is_scheduled=true, entry_computation_layout={()->()}

%inner (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %neg = f32[8,128]{1,0:T(8,128)} negate(%p), backend_config={"estimated_cycles":"900"}
}

%limit (c: s32[]) -> pred[] {
  %c = s32[] parameter(0)
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%c, %three), direction=LT
}

%body (a: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %a = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%a), index=1
  %f = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%inner, metadata={op_name="jit(step)/mlp/tanh" stack_frame_id=1}, backend_config={"estimated_cycles":"70"}
  %at = s32[]{:T(128)} get-tuple-element(%a), index=0
  %by = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%at, %by)
  ROOT %t = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%next, %f)
}

%condition (b: (s32[], f32[8,128])) -> pred[] {
  %b = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  ROOT %call = pred[] fusion(%i), kind=kLoop, calls=%limit
}

%cheap (d: f32[8,128]) -> f32[8,128] {
  %d = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %copy.1 = f32[8,128]{1,0:T(8,128)} copy(%d), backend_config={"estimated_cycles":"5"}
}

%dear (e: f32[8,128]) -> f32[8,128] {
  %e = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %copy.2 = f32[8,128]{1,0:T(8,128)} copy(%e), backend_config={"estimated_cycles":"11"}
}

ENTRY %main (q: f32[8,128], r: pred[]) -> f32[8,128] {
  %q = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="state.params[\\'w\\']"}
  %r = pred[] parameter(1)
  %zero = s32[] constant(0)
  %tuple.1 = (s32[], f32[8,128]{1,0:T(8,128)}, /*index=2*/f32[8,128]{1,0:T(8,128)}) tuple(%zero, %q)
  %loop = (s32[], f32[8,128]{1,0:T(8,128)}) while(%tuple.1), condition=%condition, body=%body
  %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  ROOT %either = f32[8,128]{1,0:T(8,128)} conditional(%r, %out, %out), branch_computations={%cheap, %dear}
}
"""


def total(module):
    return sum((item.cycles or 0) * n for item, _, n in hlo.executions(module))


def test_a_loop_counts_by_its_trips_a_fusion_once_a_conditional_by_its_dearest_branch():
    module = hlo.parse(TEXT)
    assert module.entry == "main"
    assert total(module) == 3 * 70 + 11  # not 900, which is inside the fusion
    assert hlo.unknown_loops(module) == []


def test_a_known_trip_count_wins_and_nested_loops_multiply():
    known = TEXT.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert total(hlo.parse(known)) == 7 * 70 + 11
    nested = TEXT.replace(
        "  ROOT %t = ",
        "  %again = (s32[]) while(%a), condition=%condition, body=%body2\n  ROOT %t = ",
    ).replace(
        "%condition (b",
        "%body2 (z: s32[]) -> s32[] {\n  %z = s32[] parameter(0)\n  %z2 = s32[8]{0} copy(%z), "
        'backend_config={"estimated_cycles":"2"}\n  %z3 = s32[] constant(1)\n'
        "  %z4 = s32[] add(%z, %z3)\n  ROOT %z5 = (s32[]) tuple(%z4)\n}\n\n"
        "%condition (b",
    )
    assert total(hlo.parse(nested)) == 3 * (70 + 3 * 2) + 11


def test_a_loop_s_condition_runs_once_more_than_its_body():
    text = TEXT.replace(
        "calls=%limit", 'calls=%limit, backend_config={"estimated_cycles":"2"}'
    )
    assert total(hlo.parse(text)) == 3 * 70 + 4 * 2 + 11


def test_a_loop_of_unknown_length_is_named_and_counts_once():
    module = hlo.parse(TEXT.replace("constant(3)", "parameter(1)"))
    assert total(module) == 70 + 11
    assert hlo.unknown_loops(module) == ["loop"]


@pytest.mark.parametrize(("step", "trips"), [(1, 3), (2, 2), (3, 1)])
def test_a_loop_that_the_compiler_unrolled_counts_by_its_step(step, trips):
    module = hlo.parse(
        TEXT.replace(
            "%by = s32[]{:T(128)} constant(1)", f"%by = s32[] constant({step})"
        )
    )
    assert total(module) == trips * 70 + 11


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("add(%at, %by)", "multiply(%at, %at)"),
        ("constant(1)", "parameter(1)"),
        ("tuple(%next, %f)", "copy(%a)"),
    ],
)
def test_a_loop_whose_step_is_not_told_is_unknown(line, other):
    module = hlo.parse(TEXT.replace(line, other))
    assert hlo.unknown_loops(module) == ["loop"]


def test_a_step_behind_a_copy_is_found():
    text = TEXT.replace("tuple(%next, %f)", "tuple(%copied, %f)")
    line = "  %copied = s32[]{:T(128)} copy(%next)\n  ROOT %t ="
    assert total(hlo.parse(text.replace("  ROOT %t =", line))) == 3 * 70 + 11


def test_a_step_inside_a_fusion_is_found():
    text = TEXT.replace("add(%at, %by)", "fusion(%at), kind=kLoop, calls=%increment")
    inner = (
        "%increment (n: s32[]) -> s32[] {\n  %n = s32[] parameter(0)\n"
        "  %two = s32[] constant(2)\n  ROOT %m = s32[] add(%n, %two)\n}\n\n%cheap (d"
    )
    assert total(hlo.parse(text.replace("%cheap (d", inner))) == 2 * 70 + 11


def test_parts_of_an_instruction():
    module = hlo.parse(TEXT)
    parameter, *_, loop, _, either = module.computations["main"]
    assert parameter.source.replace("\\", "") == "state.params['w']"
    assert loop.opcode == "while" and loop.inputs == ["tuple.1"]
    assert [str(a) for a in loop.arrays] == ["s32[]", "f32[8,128]"]
    assert either.root and either.called == ["cheap", "dear"]
    fusion = module.computations["body"][2]
    assert [item.name for item in module.inner(fusion)] == ["p", "neg"]
    assert fusion.arrays[0].space == 1 and parameter.arrays[0].space == 0


def test_cycles_between_hold_whole_loops():
    module = hlo.parse(TEXT)

    def cost(item):
        return item.cycles or 0

    assert hlo.cycles_between(module, "main", "zero", "out", cost) == 3 * 70
    assert hlo.cycles_between(module, "main", "zero", "zero", cost) == 0


@pytest.mark.parametrize(
    ("text", "bytes_", "size"),
    [
        ("f32[64,197]{1,0:T(8,128)}", 64 * 256 * 4, 64 * 197 * 4),  # 197 lanes -> 256
        ("f32[64,197]{0,1:T(8,128)}", 128 * 200 * 4, 64 * 197 * 4),  # the other way
        ("bf16[3,5,64]{2,1,0:T(8,128)(2,1)S(1)}", 3 * 8 * 128 * 2, 3 * 5 * 64 * 2),
        ("f32[768]{0:T(1024)}", 1024 * 4, 768 * 4),
        ("pred[10]{0}", 10, 10),
        ("s4[3]{0}", 2, 2),
        ("f32[]", 4, 4),
        ("token[]", 0, 0),
    ],
)
def test_bytes_with_and_without_padding(text, bytes_, size):
    (array,) = hlo.arrays(text)
    assert array.bytes == bytes_
    assert array.size == size


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("HloModule nothing")


def test_kernels_that_are_joined_with_a_collective_are_executed():
    """By themselves they have a cost; the fusion around them has none."""
    text = """HloModule test

%joined (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %kernel = f32[8]{0} custom-call(%p), custom_call_target="tpu_custom_call"
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %begun = f32[8]{0} copy(%x)
  %wrapped = f32[8]{0} fusion(%begun), kind=kCustom, calls=%joined
  ROOT %done = f32[8]{0} copy(%wrapped)
}
"""
    module = hlo.parse(text)

    def cost(item):
        return {"kernel": 50, "begun": 1}.get(item.name, 0)

    found = [(item.name, times) for item, _, times in hlo.executions(module, cost)]
    assert found.count(("kernel", 1)) == 1
    assert hlo.cycles_between(module, "main", "begun", "done", cost) == 50
