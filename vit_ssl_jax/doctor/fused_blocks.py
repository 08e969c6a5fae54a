"""Fused blocks and attention against the plain ones: their numbers and their speed.

Two layers of every kind of block that a run's step has, at its shapes, forward and
backward, in three forms: as the run has them, plain, and plain in float32, which is the
truth.
"""

import dataclasses
import math
import time

import jax

from vit_ssl_jax.doctor import cases, differences, findings
from vit_ssl_jax.models import attention, device
from vit_ssl_jax.models.fused import blocks as fused
from vit_ssl_jax.xla import flops
from vit_ssl_jax.xla.options import choose_options

# A TPU's compiler is fast where it may: the truth of ViT-B takes 6 s with these options
# and 65 s without them; twice that in six passes of bfloat16 ("highest"), where the three
# of "high" are exact to 16 bits.
EXACT = dict(tpu="high")
HASTE = dict(tpu={"exec_time_optimization_effort": -1.0})
CALLS = 3  # that are timed; the fastest counts
CURE = "train with --config.vit.kernels=plain, and report this line with the versions above"


def compare(case, mesh, hasty=False):
    """Runs the forms of a case on the mesh: a dict of seconds, FLOPs, and differences.

    `hasty`: the plain form is compiled in little time rather than to be fast. Keys of
    the result: `fused`, whether the run's form is another than the plain one; `reason`,
    why it isn't; `share`, how much of what is `allowed` the `difference` of `array`
    takes, above 1 where the fused form is wrong; `error`, why that didn't run at all
    (`share` is infinite then). Raises what the plain form raises.
    """
    blocks, result = case.blocks, dict(case=str(case), fused=False, share=0.0)
    plain = restyle(blocks, kernels="plain")
    exact = restyle(plain, dtype="float32", remat="none", unroll=1)
    with jax.set_mesh(mesh):
        arrays = cases.draw(case, mesh)
        result["flops"] = flops.count(passes(exact), *arrays)
        lowered = lower(plain, mesh, arrays)
        haste = HASTE.get(device.platform())
        slow = lowered.compile(haste if hasty else None)
        result["plain_seconds"] = best(slow, arrays)
        try:
            ours = lower(blocks, mesh, arrays)
            if ours.as_text() == lowered.as_text():
                return result | dict(reason=why_plain(case))
            result["fused"] = True
            ours = ours.compile()
            result["fused_seconds"] = best(ours, arrays)
        except Exception as error:  # noqa: BLE001 - a compiler fails in many ways
            return result | dict(
                fused=True, share=math.inf, error=findings.first_line(error)
            )
        with jax.default_matmul_precision(EXACT.get(device.platform(), "highest")):
            truth = lower(exact, mesh, arrays).compile(haste)(*arrays)
        far, near = (jax.block_until_ready(form(*arrays)) for form in (ours, slow))
        return result | differences.judge(far, near, truth, blocks.style.dtype)


def why_plain(case):
    """Says why a case's blocks have no fused form, which are plain as they are."""
    if case.blocks.style.kernels == "plain":
        return "config.vit.kernels=plain"
    if device.platform() == "gpu":
        head = case.shape[-1] // case.blocks.heads
        return attention.find_flash(head, case.blocks.style.dtype)
    return fused.find_style(case.blocks, case.shape)[1]


def restyle(blocks, **changes):
    """A copy of the blocks with `changes` of their style."""
    return blocks.clone(style=dataclasses.replace(blocks.style, **changes))


def passes(blocks):
    """Makes `(params, x, valid, grad) -> output, gradients of params and x`.

    The output is 0 where tokens aren't valid.
    """

    def run(params, x, valid, grad):
        def apply(params, x):
            y = blocks.apply({"params": params}, x, True, valid)[0]
            return cases.only_valid(y, valid)

        y, pull = jax.vjp(apply, params, x)
        return y, *pull(grad)

    return run


def lower(blocks, mesh, arrays):
    """The passes of blocks lowered with the options that a run's step has."""
    run = passes(blocks)
    options = choose_options(jax.jit(run), mesh, *arrays)
    return jax.jit(run, compiler_options=options).lower(*arrays)


def best(function, arrays):
    """Seconds of the fastest call, after one that doesn't count."""
    seconds = []
    for _ in range(1 + CALLS):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def describe_fault(result):
    """What is wrong with the fused form by `compare`'s result; "" where nothing is."""
    if result["share"] <= 1:
        return ""
    if "error" in result:
        return f"the fused form of blocks of {result['case']} fails ({result['error']})"
    return (
        f"the fused form differs from the plain one by {result['difference']:.2g} "
        f"(allowed {result['allowed']:.2g}; {result['norm']} of the {result['array']}, "
        f"{result['case']})"
    )


def describe(result):
    """One line on `compare`'s result."""
    case, slow = result["case"], f"plain {1000 * result['plain_seconds']:.3g} ms"
    if not result["fused"]:
        return f"{case}: {slow} ({result['reason']})"
    if fault := describe_fault(result):
        return fault
    fast = result["fused_seconds"]
    return (
        f"{case}: fused {1000 * fast:.3g} ms, {slow}; largest "
        f"difference {result['difference']:.2g} of {result['allowed']:.2g} allowed "
        f"({result['norm']} of the {result['array']})"
    )


def check(run):
    """A finding for every kind of block of a `build.Run`."""
    out = []
    for case in cases.find_cases(run):
        result = compare(case, run.mesh)
        ok = result["share"] <= 1
        cure = "" if ok else CURE
        out.append(findings.make("kernels", ok, describe(result), cure, **result))
    return out


def find_speed(checked):
    """FLOP/s of all devices in the blocks that `check` has timed; None: none was."""
    timed = [finding for finding in checked if "plain_seconds" in finding]
    if not timed:
        return None
    seconds = (
        finding.get("fused_seconds", finding["plain_seconds"]) for finding in timed
    )
    return sum(finding["flops"] for finding in timed) / sum(seconds)
