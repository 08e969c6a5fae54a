"""Walks through machine code written by hand, where every count is known."""

import numpy as np
import pytest

from vit_ssl_jax.plan.kernel_cost import code, walk

# Three rounds over 0x1..0x8, of which the first skips 0x4 (a branch, its four delay
# slots, and the fifth bundle behind it), with a DMA of 64 granules in those that don't.
LOOP = """\
= control target key start
LB: loop body
= control target key end

     0   :  { %s1_s0 = smov 0 /* copy */ } /* entry */
   0x1 LB: > { %s2_s0 = sphi %s1_s0, %s3_s0 /* index */ } /* Start region 7 */
   0x2   : > { %p4_p0 = scmp.eq.s32.totalorder %s2_s0, 0 }
   0x3   : > { %9 = sbr.rel (%p4_p0) target = $region3 }
   0x4   :  {}
   0x5   :  {}
   0x6   :  {}
   0x7   :  {}
   0x8   : > { %11 = dma.hbm_to_vmem [thread:$0]  /*hbm=*/%s7_s1, /*size_in_granules=*/64, \
/*vmem=*/%s8_s2 /* base_bounds: (64, 2) */ }
   0x9 PF: > { %s3_s0 = sadd.s32 1, %s2_s0 } /* Start/End empty region 3 */
   0xa   : > { %p5_p1 = scmp.ge.s32.totalorder %s3_s0, 3 /* loop exit test */ }
   0xb   : > { %10 = sbr.rel (!%p5_p1) target = $region7 }
   0xc   :  {}
   0xd   :  {}
   0xe   :  {}
   0xf   :  {}
  0x10   :  { %12 = vsyncpa [#allocation3], 1 }
"""


def test_walk_counts_loops_skipped_regions_and_transfers():
    """Bundles of the loop three times, the skipped one twice, with its two DMAs."""
    found = walk.walk(LOOP)
    expected = [1] + [3] * 7 + [2] + [3] * 7 + [1]
    np.testing.assert_array_equal(found.counts, expected)
    assert found.bundles == sum(expected)
    assert found.bytes == 2 * 64 * 32


def test_a_transfer_within_hbm_is_read_and_written():
    within = LOOP.replace("dma.hbm_to_vmem", "dma.general").replace(
        "/* base_bounds: (64, 2) */", "/* hbm-to-hbm */"
    )
    assert walk.walk(within).bytes == 2 * 2 * 64 * 32
    with pytest.raises(code.Unknown, match="from where to where"):
        walk.walk(LOOP.replace("dma.hbm_to_vmem", "dma.general"))


def test_walk_refuses_what_depends_on_data():
    """A trip count from memory isn't guessed."""
    data = LOOP.replace("%s3_s0, 3 /*", "%s3_s0, %s99_s5 /*")
    data = data.replace("{ %s1_s0 =", "{ %s99_s5 = sld [smem:%s50_s9] ;; %s1_s0 =")
    with pytest.raises(code.Unknown, match="a branch depends on data"):
        walk.walk(data)
    with pytest.raises(code.Unknown, match="a DMA depends on data"):
        walk.walk(LOOP.replace("$0]  /*hbm", "$0]  (%p77_p2), /*hbm"))
    with pytest.raises(code.Unknown, match="the size of a DMA"):
        walk.walk(LOOP.replace("granules=*/64", "granules=*/%s42_s4"))


def test_walk_knows_which_core_it_is():
    """Where two cores run one kernel, what the first does the second may skip."""
    text = LOOP.replace(
        "{ %s1_s0 =", "{ %s9_s9 = sld [smem:[#all0]] /* core id */ ;; %s1_s0 ="
    )
    text = text.replace("%s2_s0, 0 }", "%s9_s9, 1 }")
    first, second = walk.walk(text), walk.walk(text, core=1)
    assert (first.counts[8], second.counts[8]) == (3, 0)
    assert (first.bytes, second.bytes) == (3 * 64 * 32, 0)


def test_parse_finds_the_region_that_has_no_mark():
    """One label without a name is the one target without a place; two are a riddle."""
    text = LOOP.replace("/* Start/End empty region 3 */", "")
    assert code.parse(text)[1] == {"region7": 1, "region3": 9}
    with pytest.raises(code.Unknown, match="marked as region3"):
        code.parse(text.replace("0xa   :", "0xa PF:"))


def test_walk_refuses_code_with_a_gap():
    """A bundle that isn't read would be time that isn't counted."""
    with pytest.raises(code.Unknown, match="0x6 is missing"):
        walk.walk(LOOP.replace("   0x6   :  {}\n", ""))


def test_walk_ends_for_an_endless_loop(monkeypatch):
    """It says so."""
    monkeypatch.setattr(walk, "LIMIT", 1000)
    with pytest.raises(code.Unknown, match="endless"):
        walk.walk(LOOP.replace("%s3_s0, 3 /*", "%s3_s0, 3000000 /*"))


def test_walk_reads_all_operands_before_it_writes():
    """A bundle's instructions see the registers as they were: two swap their values."""
    text = LOOP.replace(
        "{ %s1_s0 = smov 0 /* copy */ }", "{ %s1_s0 = smov 0  ;;  %s20_s6 = smov 1 }"
    )
    swap = "%s20_s6 = smov %s21_s7  ;;  %s21_s7 = smov %s20_s6  ;;  %s3_s0 ="
    text = text.replace("{ %s3_s0 =", "{ " + swap).replace(
        "%s3_s0, 3 /*", "%s21_s7, 1 /*"
    )
    assert walk.walk(text).counts[1] == 1  # s21 is 1 after the first round


@pytest.mark.parametrize(
    ("opcode", "inputs", "expected"),
    [
        ("sadd.s32", [4294967295, 5], 4),  # minus one, as the dump writes it
        ("ssub.s32", [3, 5], -2),
        ("smul.u32", [65536, 65537], 65536),
        ("smulhi.u32", [2863311531, 35], 23),  # the compiler's division by 12: >> 3
        ("sshrl.u32", [-1, 28], 15),
        ("sshra.s32", [-16, 2], -4),
        ("sand.u32", [13, 1], 1),
        ("smin.u32", [-1, 7], 7),
        ("scmp.lt.s32.totalorder", [-1, 7], True),
        ("scmp.lt.u32.totalorder", [-1, 7], False),
        ("scalar_select", [False, 3, 4], 4),
        ("scalar_select", [None, 3, 4], None),
        ("pnand", [True, False], True),
        ("por", [None, True], None),
        ("pneg", [False], True),
        ("sdivrem.kDivAndRem", [35, 12], (2, 11)),
        ("sdivrem.kRem", [35, 12], (11,)),
        ("spop", [(2, 11), 1], 11),
        ("scvt.s32.f32", [3], None),
    ],
)
def test_compute_follows_the_machine(opcode, inputs, expected):
    """32 bits, and nothing is known that isn't certain."""
    assert walk.compute(opcode, inputs) == expected


def test_parse_operation_finds_predicates_wherever_they_stand():
    """A conditional move names the old value; loads have their predicate behind."""
    parse = code.parse_operation
    assert parse("%s9_s2 = smov (!%p2_p0, %s7_s2), %s6_s1 /* phi */") == (
        code.Operation("smov", "s9_s2", ("s6_s1",), "!p2_p0", "s7_s2")
    )
    assert parse("%s4_s29 = sld [smem:[#allocation11_spill]] (%p3_p6)") == (
        code.Operation("sld", "s4_s29", ("smem [#allocation11_spill]",), "p3_p6", "")
    )
    assert parse("%13 = sst [smem:[#allocation6_spill]] %s5_s21") == (
        code.Operation("sst", "smem [#allocation6_spill]", ("s5_s21",), "", "")
    )
    assert parse("%v9_v3 = vadd.f32 %v1_v1, %v2_v2") is None


def test_split_comments_knows_that_they_nest():
    """What a trap's comment quotes isn't code."""
    text = (
        "%5 = shalt.err /* for dma.hbm_to_vmem /*hbm=*/%s1 /* shape */ */ ;; %s2_s2 = x"
    )
    bare, comments = code.split_comments(text)
    assert bare == "%5 = shalt.err  ;; %s2_s2 = x"
    assert "dma" in comments


def test_matmul_flops_by_the_width_of_the_unit():
    """16 rows of bfloat16 or 8 of float32, times a square of 128 or 256."""
    flops = code.matmul_flops
    assert flops("%1 = vmatmul.bf16.gmra.mxu0 %v1_v1") == 2 * 16 * 128**2
    assert flops("%1 = vmatmul.f32.gmra.mxu0 %v1_v1 ;; %2 = vmatmul.bf16.mxu1 ") == (
        2 * 24 * 128**2
    )
    assert flops("%1 = vmatmul.mubr.bf16.gmra.mrb[0].mxu0 %v1") == 2 * 16 * 256**2
    assert flops("%1 = vmatpush.bf16.msra.mxu0 %v1_v1") == 0
    with pytest.raises(code.Unknown, match="vmatmul.s8"):
        flops("%1 = vmatmul.s8.gmra.mxu0 %v1_v1")
