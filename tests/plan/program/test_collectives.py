"""Groups against numpy, bytes and waiting time against sums by hand."""

import numpy as np
import pytest

from vit_ssl_jax.plan import topologies
from vit_ssl_jax.plan.program import collectives, hlo, replicas

MESH = dict(data=2, fsdp=4, tensor=1)
NUMBERS = np.arange(8).reshape(2, 4)  # data x fsdp
ALONG = {
    "fsdp": [set(row) for row in NUMBERS],
    "data": [set(column) for column in NUMBERS.T],
    "data+fsdp": [set(range(8))],
}


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", "fsdp"),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", "data"),
        ("replica_groups={}, to_apply=%add", "data+fsdp"),
        ("replica_groups=[2,4]<=[8], dimensions={0}", "fsdp"),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", "data"),
        ("replica_groups=[1,8]<=[8]", "data+fsdp"),
        ("replica_groups=mesh['a'=8,'b'=1] {'a','b'}, use", "data+fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}, use", "fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, use", "data"),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", "fsdp"),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", "data"),
        ("replica_groups=mesh['a'=8] {'a':(1)2}, use", "data"),
        ("replica_groups=mesh['a'=8] {'a':(2)4}, use", "fsdp"),
        (
            "replica_groups=mesh['a'=2,'b'=4], device_ids=(0,4,1,5,2,6,3,7) {'a','b'}",
            "data+fsdp",
        ),
    ],
)
def test_all_forms_of_groups_name_the_axis(text, axis):
    members = replicas.groups(text, 8)
    assert sorted(map(sorted, members.tolist())) == sorted(map(sorted, ALONG[axis]))
    assert replicas.axes_of(members, MESH) == axis


def test_pairs_of_a_permutation_and_what_isnt_known():
    members = replicas.groups("source_target_pairs={{0,4},{4,0}}, meta", 8)
    assert members.tolist() == [[0, 4], [4, 0]]
    assert replicas.axes_of(members, MESH) == "data"
    with pytest.raises(ValueError, match="unknown form"):
        replicas.groups("replica_groups=everyone", 8)


TEXT = """HloModule step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%scatter_body (i: f32[8,128]) -> f32[2,128] {
  %i = f32[8,128]{1,0} parameter(0)
  %inside = f32[8,128]{1,0} all-reduce(%i), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %cut = f32[2,128]{1,0} dynamic-slice(%inside), dynamic_slice_sizes={2,128}
}

%begin (j: bf16[2,128]) -> bf16[8,128] {
  %j = bf16[2,128]{1,0} parameter(0)
  %g1 = bf16[8,128]{1,0} all-gather(%j), channel_id=5, replica_groups=[2,4]<=[8], frontend_attributes={chain_id="2"}
  ROOT %s = (bf16[8,128]{1,0}) custom-call(%g1), custom_call_target="AsyncCollectiveStart"
}

%middle (k: bf16[2,128]) -> bf16[8,128] {
  %k = bf16[2,128]{1,0} parameter(0)
  ROOT %g2 = bf16[8,128]{1,0} all-gather(%k), channel_id=5, replica_groups=[2,4]<=[8], frontend_attributes={chain_id="2"}
}

%end (l: bf16[2,128]) -> bf16[8,128] {
  %l = bf16[2,128]{1,0} parameter(0)
  %g3 = bf16[8,128]{1,0} all-gather(%l), channel_id=5, replica_groups=[2,4]<=[8], frontend_attributes={chain_id="2"}
  ROOT %d = bf16[8,128]{1,0} custom-call(%g3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (m: f32[8,128]) -> f32[2,128] {
  %m = f32[8,128]{1,0} parameter(0)
  %whole = f32[8,128]{1,0} all-reduce(%m), channel_id=6, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %share = f32[2,128]{1,0} dynamic-slice(%whole), dynamic_slice_sizes={2,128}
}

%limit (c: s32[]) -> pred[] {
  %c = s32[] parameter(0)
  %twelve = s32[] constant(12)
  ROOT %less = pred[] compare(%c, %twelve), direction=LT
}

%body (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b1 = (bf16[8,128]{1,0}) fusion(%a), kind=kCustom, calls=%begin
  %m1 = bf16[8,128]{1,0} fusion(%b1), kind=kOutput, calls=%middle, backend_config={"estimated_cycles":"40"}
  %w1 = f32[8,128]{1,0} fusion(%a), kind=kLoop, calls=%add, backend_config={"estimated_cycles":"2"}
  %e1 = bf16[8,128]{1,0} fusion(%m1), kind=kCustom, calls=%end
  %r1 = f32[2,128]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %sync = f32[8,128]{1,0} all-reduce(%a), channel_id=1, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
}

ENTRY %main (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %start = (f32[8,128]{1,0}, f32[8,128]{1,0}, u32[]{:S(2)}) collective-permute-start(%q), channel_id=2, source_target_pairs={{0,4},{4,0}}
  %busy = f32[8,128]{1,0} copy(%q), backend_config={"estimated_cycles":"123"}
  %done = f32[8,128]{1,0} collective-permute-done(%start)
  %self = f32[8,128]{1,0} all-reduce(%q), channel_id=3, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  %ag = (f32[2,128]{1,0}, f32[8,128]{1,0}) all-gather-start(%q), channel_id=9, replica_groups=[2,4]<=[8]
  %agd = f32[8,128]{1,0} all-gather-done(%ag)
  ROOT %loop = f32[8,128]{1,0} while(%q), condition=%limit, body=%body, backend_config={"known_trip_count":{"n":"12"}}
}
"""
FULL = 8 * 128 * 4  # bytes of f32[8,128]


def rows():
    found = collectives.find(hlo.parse(TEXT), MESH)
    return {(row["kind"], row["axis"]): row for row in found}, found


def test_every_collective_once_with_its_axis_bytes_and_count():
    by, found = rows()
    assert len(found) == 5  # the one of single devices is none
    seen = {key: (row["bytes"], row["count"]) for key, row in by.items()}
    assert seen["collective-permute", "data"] == (FULL, 1)
    assert seen["all-reduce", "data"] == (FULL, 12)
    assert seen["reduce-scatter", "fsdp"] == (FULL, 12)
    gathers = [row for row in found if row["kind"] == "all-gather"]
    assert [(g["bytes"], g["count"]) for g in gathers] == [(FULL, 1), (FULL // 2, 12)]


def test_what_runs_meanwhile_hides_it():
    by, found = rows()
    assert by["collective-permute", "data"]["hidden"] == 123
    assert by["collective-permute", "data"]["asynchronous"]
    chain = next(row for row in found if row["count"] == 12 and row["bytes"] < FULL)
    assert chain["hidden"] == 42 and chain["asynchronous"]
    assert by["all-reduce", "data"]["hidden"] == 0
    assert not by["all-reduce", "data"]["asynchronous"]


def test_bytes_on_the_wire_of_a_ring():
    assert collectives.wire("all-reduce", 800, 4) == 2 * 800 * 3 // 4
    assert collectives.wire("all-gather", 800, 4) == 600
    assert collectives.wire("reduce-scatter", 800, 2) == 400
    assert collectives.wire("collective-permute", 800, 2) == 800


def test_alike_rows_are_one():
    found = rows()[1]
    merged = collectives.merge([*found, *found])
    assert sum(row["count"] for row in merged) == 2 * sum(r["count"] for r in found)
    assert len(merged) == len(found)


def test_exposed_is_what_nothing_hides():
    chip = topologies.CHIPS["v5e"]
    row = dict(wire=2_000_000, count=3, between_slices=False, hidden=10_000)
    # 2 MB over two directions of 50 GB/s at 1.5 GHz: 30,000 cycles, 10,000 hidden.
    found = collectives.estimate([row], chip, cycles=140_000)
    assert found["wire_bytes"] == 6_000_000
    assert found["cycles"] == 90_000
    assert found["exposed_cycles"] == 60_000
    assert found["exposed_share"] == pytest.approx(60 / 200)
    far = collectives.estimate([row | {"between_slices": True}], chip, 140_000)
    assert far["cycles"] == 90_000 * 32  # 3.125 GB/s


def test_the_network_between_slices_is_seen():
    module = hlo.parse(TEXT)
    slices = [0, 0, 0, 0, 1, 1, 1, 1]
    found = collectives.find(module, MESH, slices=slices)
    assert {row["axis"] for row in found if row["between_slices"]} == {"data"}
    assert {row["axis"] for row in found if not row["between_slices"]} == {"fsdp"}


SLICES = """HloModule step, is_scheduled=true

ENTRY %main (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %all = token[] after-all()
  %recv.1 = (f32[8,128]{1,0}, u32[], token[]) recv(%all), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.1 = (f32[8,128]{1,0}, u32[], token[]) send(%q, %all), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_transfer_type="ALL_REDUCE"}
  %busy = f32[8,128]{1,0} copy(%q), backend_config={"estimated_cycles":"55"}
  %sent = token[] send-done(%send.1)
  ROOT %got = (f32[8,128]{1,0}, token[]) recv-done(%recv.1)
}
"""


def test_what_slices_exchange_by_their_hosts_is_a_collective_of_the_slices():
    (row,) = collectives.find(hlo.parse(SLICES), MESH, slices=[0, 0, 0, 0, 1, 1, 1, 1])
    assert (row["kind"], row["axis"], row["bytes"]) == ("all-reduce", "slices", FULL)
    assert row["between_slices"] and row["hidden"] == 55
    assert row["wire"] == FULL  # 2 x half of it


def test_what_slices_gather_is_the_whole_array():
    text = SLICES.replace("ALL_REDUCE", "ALL_GATHER").replace(
        "all-reduce", "all-gather"
    )
    text = text.replace(
        "(f32[8,128]{1,0}, u32[], token[]) recv",
        "(f32[16,128]{1,0}, u32[], token[]) recv",
    )
    (row,) = collectives.find(hlo.parse(text), MESH, slices=[0, 0, 0, 0, 1, 1, 1, 1])
    assert (row["kind"], row["bytes"], row["wire"]) == ("all-gather", 2 * FULL, FULL)
