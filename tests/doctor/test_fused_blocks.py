"""Planted faults in kernels and attention are found, and what is right passes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build, partition
from vit_ssl_jax.doctor import cases, differences, fused_blocks
from vit_ssl_jax.kernels import attention as scores
from vit_ssl_jax.kernels import mlp
from vit_ssl_jax.models import attention, device, layers, stack
from vit_ssl_jax.models.fused import blocks as fused

STYLE = layers.Style(
    dtype="bfloat16", norm_eps=1e-6, gelu="exact", init="mae", remat="none", unroll=1
)
FORWARD, BACKWARD = mlp._forward, mlp._backward


def compare(axes=0, shape=(8, 35, 64), data=1, fsdp=1):
    """What the check finds on two small blocks, on `data` x `fsdp` devices."""
    case = cases.Case(stack.Blocks(2, 2, 128, STYLE), shape, axes)
    sizes = dict(data=data, fsdp=fsdp, tensor=1)
    mesh = partition.make_mesh(sizes, jax.devices()[: data * fsdp])
    return fused_blocks.compare(case, mesh)


SLOW = pytest.mark.slow  # ~ 5 s each


@pytest.mark.parametrize(
    "axes", [pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW), 2]
)
def test_right_kernels_pass(interpreted, axes):
    """With a margin: they are as near to the truth as plain bfloat16."""
    found = compare(axes)
    assert found["fused"] and found["share"] < 0.6
    assert 0 < found["difference"] < 0.05
    assert found["plain_seconds"] > 0 and found["fused_seconds"] > 0
    assert fused_blocks.describe_fault(found) == ""
    text = fused_blocks.describe(found)
    assert "width 64, 2 heads, 35 tokens" in text and "allowed" in text
    assert ("some not valid" in text) == (axes > 0)


@SLOW
def test_right_kernels_pass_on_several_devices(interpreted):
    found = compare(axes=2, data=2, fsdp=2)
    assert found["fused"] and found["share"] < 0.6


def wrong_scale(patch):
    """Attention's scores 2 % too large."""
    patch.setattr(scores, "LOG2E", 1.02 * scores.LOG2E)


def no_residual(patch):
    """The MLP's output without what it is added to."""

    def wrong(x_ref, heads_ref, *refs, style):
        FORWARD(x_ref, heads_ref, *refs, style=style)
        out_ref, middle_ref, _ = refs[-3:]
        out_ref[...] -= middle_ref[...]

    patch.setattr(mlp, "_forward", wrong)


def no_bias(patch):
    """The gradient of the MLP's first bias is lost."""

    def wrong(*refs, style):
        BACKWARD(*refs, style=style)
        refs[-5][...] = jnp.zeros_like(refs[-5])

    patch.setattr(mlp, "_backward", wrong)


def one_row(patch):
    """A single row of the last tile is a little off."""

    def wrong(x_ref, heads_ref, *refs, style):
        FORWARD(x_ref, heads_ref, *refs, style=style)
        refs[-3][0:1, :] *= 1.3

    patch.setattr(mlp, "_forward", wrong)


def no_number(patch):
    """One value of the output is NaN."""

    def wrong(x_ref, heads_ref, *refs, style):
        FORWARD(x_ref, heads_ref, *refs, style=style)
        refs[-3][0:1, 0:1] = jnp.full((1, 1), jnp.nan)

    patch.setattr(mlp, "_forward", wrong)


def no_mask(patch):
    """Tokens that aren't valid, and padding, are attended to."""
    patch.setattr(fused, "NEVER", 0.0)


FAULTS = {
    wrong_scale: "",
    no_residual: "",
    no_bias: "gradient of mlp/up/bias",
    one_row: "",
    no_number: "",
    no_mask: "",
}
SELDOM = one_row, no_mask, wrong_scale
PLANTS = [pytest.param(f, marks=[SLOW] * (f in SELDOM), id=f.__name__) for f in FAULTS]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_wrong_kernel_is_found(interpreted, plant):
    plant(interpreted)
    found = compare(axes=2)
    assert found["fused"] and found["share"] > 1
    assert FAULTS[plant] in found["array"]
    if plant is no_number:
        assert math.isnan(found["difference"])
    fault = fused_blocks.describe_fault(found)
    assert fault.startswith("the fused form differs from the plain one by ")
    assert found["array"] in fault and fused_blocks.describe(found) == fault


def test_a_kernel_that_fails_is_found(interpreted):
    def wrong(*refs, style):
        raise NotImplementedError("no such layout\nin a long report")

    interpreted.setattr(mlp, "_backward", wrong)
    found = compare()
    assert found["fused"] and found["share"] == math.inf
    assert "fails (NotImplementedError: no such layout)" in fused_blocks.describe(found)


FLASH = attention.by_cudnn


@pytest.mark.parametrize(
    ("wrong", "found_wrong"),
    [
        (lambda q, k, v, lengths: (q, k, v, lengths), False),
        (lambda q, k, v, lengths: (q, k, v, None), True),
        pytest.param(
            lambda q, k, v, lengths: (1.02 * q, k, v, lengths),
            True,
            marks=pytest.mark.slow,
        ),
        (lambda q, k, v, lengths: (q, k, jax.lax.stop_gradient(v), lengths), True),
    ],
    ids=["right", "no mask", "scale", "no gradient of v"],
)
def test_a_wrong_attention_is_found(monkeypatch, wrong, found_wrong):
    """Traced as for a GPU; jax's own attention takes the arrays that cuDNN would get."""

    def flash(q, k, v, lengths):
        *low, lengths = wrong(q, k, v, lengths)
        wide = (x.astype(jnp.float32) for x in low)
        return FLASH(*wide, lengths, implementation="xla").astype(q.dtype)

    monkeypatch.setattr(device, "platform", lambda: "gpu")
    monkeypatch.setattr(attention, "by_cudnn", flash)
    found = compare(axes=2)
    assert found["fused"] and (found["share"] > 1) == found_wrong


@pytest.mark.parametrize(
    ("method", "expected"),
    [("mae", {(16, 17, 32, 0), (8, 65, 64, 0)}), ("ijepa", {(16, 64, 32, 0)})],
)
def test_the_blocks_of_a_step_are_the_cases(method, expected, one):
    """By hand: 64 patches, of which MAE's encoder sees 16 and a class token.

    Of its decoder's 65 tokens, 72 rows, a CPU is given 8 images: 1024 rows hold 14.
    """
    config = runs.small(method, vit__variant="2x32x2/4")
    found = cases.find_cases(build.make_run(config, one))
    shapes = {(*case.shape, case.axes) for case in found}
    assert expected <= shapes
    assert all(case.blocks.depth == 2 for case in found)
    if method == "ijepa":  # the student's and the predictor's tokens aren't all valid
        assert len(found) == 3 and sum(case.axes > 0 for case in found) == 2


def test_what_a_step_draws_and_splits_doesnt_change_the_cases(one):
    plain = cases.find_cases(build.make_run(runs.small("mae"), one))
    changes = dict(accum=2, batch_size=32, vit__droppath=0.1, vit__dropout=0.1)
    drawn = cases.find_cases(build.make_run(runs.small("mae", **changes), one))
    assert drawn == plain


def test_where_blocks_are_plain_the_reason_is_said(one):
    run = build.make_run(runs.small("mae"), one)
    found = fused_blocks.check(run)
    assert [finding["ok"] for finding in found] == [True, True]
    assert all("(cpu has no kernels" in finding["text"] for finding in found)
    assert fused_blocks.find_speed(found) > 1e6
    config = runs.small("mae", vit__kernels="plain")
    found = fused_blocks.check(build.make_run(config, one))
    assert all("(config.vit.kernels=plain)" in finding["text"] for finding in found)


def test_a_difference_is_measured_by_the_array():
    """Errors by hand: 1 % of everything, and one value in 10,000 that is 3 rms off."""
    truth = jnp.ones((1, 100, 100)), {"block": {"bias": jnp.full((2, 50), 4.0)}}
    truth = (*truth, jnp.full((1, 10, 10), -2.0))
    off = truth[0].at[0, 0, 0].add(3.0), *jax.tree.map(lambda x: 1.01 * x, truth[1:])
    found = jax.device_get(differences.distances(off, truth))
    assert found["output"] == pytest.approx(np.array([[0.03, 3.0]]), rel=1e-5)
    assert found["gradient of bias"] == pytest.approx(np.full((2, 2), 0.01), rel=1e-3)
    near = jax.tree.map(lambda x: 1.001 * x, truth)
    judged = differences.judge(off, near, truth, "bfloat16")
    assert judged["array"] == "output" and judged["norm"] == "max"
    assert judged["difference"] == pytest.approx(3.0, rel=1e-5)
    assert judged["allowed"] == pytest.approx(2.5 * 0.001 + 2 * 2**-7, rel=1e-3)
    assert judged["share"] == pytest.approx(judged["difference"] / judged["allowed"])
