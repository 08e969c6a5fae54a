"""Cycles by part of the model: every instruction of a program belongs to one part."""

import math
import re

from vit_ssl_jax.plan.program import hlo

PARTS = (
    "attention scores",
    "projections",
    "MLP",
    "norms",
    "views",
    "optimizer",
    "copies",
    "rest",
)
MATMULS = {"dot", "convolution"}
CUBLAS = re.compile(
    r"__cublas|\$gemm|\$matmul"
)  # what calls of GPUs' matmuls are named
# Instructions that compute nothing.
MOVES = hlo.NAMES | {
    "broadcast",
    "concatenate",
    "copy",
    "copy-done",
    "copy-start",
    "dynamic-slice",
    "dynamic-update-slice",
    "pad",
    "reshape",
    "reverse",
    "slice",
    "transpose",
}
# Scopes, modules and kernels in a source's path -> part; the first row that fits.
SCOPES = (
    (r"place/pallas_call", "copies"),
    (r"views", "views"),
    (r"optimizer|ema", "optimizer"),
    (r"attn/(?:\w+\([^/]*\)/)*(?:qkv|out|query|key|value)", "projections"),
    (r"project|project_backward", "projections"),  # with the norm before it
    (r"attn|attend|attend_backward", "attention scores"),
    (r"mlp|mix|mix_backward", "MLP"),  # with the projection and norm before it
    (r"\w*norm\d*", "norms"),
)


def part_of(instruction, module):
    """The row of PARTS that an instruction's cycles belong to.

    What only moves data is a copy. A fusion that holds a matmul belongs to where that
    was written, for its own source is often that of what was fused onto it; another to
    where most of its elements are computed; anything else to its source.
    """
    inner = module.inner(instruction) if instruction.opcode == "fusion" else []
    computed = [item for item in inner or [instruction] if not _moves(item)]
    if not computed:
        return "copies"
    for item in computed:
        if item.opcode in MATMULS and item.source:
            return scope_part(item.source)
    votes = {}
    for item in computed:
        part = scope_part(item.source)
        votes[part] = votes.get(part, 0) + sum(math.prod(a.shape) for a in item.arrays)
    unknown = votes.pop("rest", 0)
    if not votes:
        return scope_part(instruction.source)
    best = max(votes, key=votes.get)
    return best if votes[best] > unknown else scope_part(instruction.source)


def _moves(item):
    """Whether an instruction computes no array; scalars are indices."""
    scalar = all(not array.shape for array in item.arrays)
    return scalar or item.opcode in MOVES


def scope_part(source):
    """The row of PARTS of an `op_name`: `jit(step)/.../block/mlp/up/dot_general`."""
    for pattern, part in SCOPES:
        if re.search(rf"(?:^|[/(])(?:{pattern})(?:[/)]|$)", source):
            return part
    return "rest"


def cycles_by_part(module, cost):
    """Estimated cycles of one execution of the program: `{part: int}`, all PARTS.

    `cost` is `make_cost`'s, or any other function of an instruction.
    """
    totals = dict.fromkeys(PARTS, 0)
    for item, _, times in hlo.executions(module, cost):
        if cycles := cost(item):
            totals[part_of(item, module)] += cycles * times
    return totals


def make_cost(kernels):
    """Makes `Instruction -> cycles` of one execution, without what it calls.

    `kernels` is `{instruction name: cycles}` for custom kernels, which carry no
    estimate of the compiler.
    """

    def cost(item):
        return kernels.get(item.name, item.cycles or 0)

    return cost


def kernel_rows(module, costs):
    """Custom kernels by themselves: a dict each, costliest first.

    `costs` is `{instruction name: kernel_cost.cost.Cost}`. Kernels of one name and cost
    are one row.
    """
    rows = {}
    cost = make_cost({name: c.cycles for name, c in costs.items()})
    for item, _, times in hlo.executions(module, cost):
        if item.target != hlo.KERNEL:
            continue
        c, part = costs[item.name], part_of(item, module)
        row = dict(name=c.name, part=part, cycles=c.cycles, bundles=c.bundles)
        row |= dict(bytes=c.bytes, grid_steps=c.grid_steps, spills=c.spills)
        key = tuple(row.values())
        row |= dict(units=c.units, executions=0)
        rows.setdefault(key, row)["executions"] += times
    return sorted(rows.values(), key=lambda r: -r["cycles"] * r["executions"])


def uncosted(module, kernels):
    """What is executed without an estimate and isn't free, largest first.

    `{opcode: {"times": int, "bytes": int}}`, bytes of the results. Mostly transfers
    between HBM and VMEM, which run beside the computation, and collectives.
    """
    rows = {}
    cost = make_cost(kernels)
    for item, _, times in hlo.executions(module, cost):
        free = item.opcode in hlo.NAMES or item.opcode in hlo.CALLS
        free = free or any(x.name in kernels for x in module.inner(item))
        free = free or item.opcode.endswith("-done") or item.target == "AllocateBuffer"
        size = sum(array.bytes for array in item.arrays if array.shape)
        if free or not size or item.cycles is not None or item.name in kernels:
            continue
        name = f"custom-call {item.target}" if item.target else item.opcode
        row = rows.setdefault(name, dict(times=0, bytes=0))
        row["times"] += times
        row["bytes"] += size * times
    return dict(sorted(rows.items(), key=lambda pair: -pair[1]["bytes"]))
