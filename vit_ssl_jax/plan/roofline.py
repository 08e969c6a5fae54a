"""A closed-form estimate of a GPU program's time: FLOPs, bytes and messages over peaks.

Every instruction takes the longer of two: its matmuls' FLOPs at the card's peak, or what
it reads and writes at the bandwidth of its memory. No GPU reaches all of its peaks, and
starting kernels isn't counted, so this is a bound from below, not a forecast.
"""

import math
import re

from vit_ssl_jax.plan.program import hlo, parts

ATTENTION = "__cudnn$fmha"
# Matmuls [N E] x [E N] or [N N] x [N E] in cuDNN's attention; back, scores are anew.
FORWARD, BACKWARD = 2, 5
FREE = (
    hlo.NAMES | hlo.CALLS | {"async-done", "async-update", "after-all", "conditional"}
)


def make_cost(module, card):
    """Makes `Instruction -> nanoseconds` of one execution, without what it calls."""
    types = types_of(module)

    def cost(item):
        if is_free(item):
            return 0
        seconds = max(
            flops(item, module, types) / peak(item, card, types),
            moved(item, module, types) / card.hbm_bytes_per_second,
        )
        return round(1e9 * seconds)

    return cost


def peak(item, card, types):
    """FLOP/s of an instruction's matmuls: TF32, which float32 is, has half of bfloat16's."""
    read = [array.dtype for name in item.inputs[:2] for array in types[name]]
    wide = bool(read) and set(read) == {"f32"}
    return card.peak_flops / 2 if wide else card.peak_flops


def is_free(item):
    """Whether an instruction is a name, a call, or a message (which has its own time)."""
    message = item.opcode.endswith(("-start", "-done")) or item.opcode.startswith(
        ("all-", "reduce-scatter", "collective-", "ragged-")
    )
    return message or item.opcode in FREE


def flops(item, module, types):
    """FLOPs of the matmuls of an instruction, those inside a fusion with it: int."""
    if item.target.startswith(ATTENTION):
        return attention_flops(item, types)
    if parts.CUBLAS.search(item.target):
        return matmul_flops(item, types)
    inner = module.inner(item) if item.opcode == "fusion" else [item]
    return sum(matmul_flops(x, types) for x in inner if x.opcode == "dot")


def matmul_flops(item, types):
    """FLOPs of a matmul: two for every value of result and contracted axes."""
    left = types[item.inputs[0]][0].shape
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", item.attributes)
    if not match:
        match = re.search(
            r'"lhs_contracting_dimensions":\[([^\]]*)\]',
            item.attributes.replace(" ", ""),
        )
    axes = [int(n) for n in re.findall(r"\d+", match[1])]
    return 2 * math.prod(item.arrays[0].shape) * math.prod(left[a] for a in axes)


def attention_flops(item, types):
    """FLOPs of cuDNN's attention, of whole rows: padding counts."""
    batch, queries, heads, width = types[item.inputs[0]][0].shape
    keys = types[item.inputs[1]][0].shape[1]
    products = BACKWARD if "Backward" in item.target else FORWARD
    return products * 2 * batch * heads * queries * keys * width


def moved(item, module, types):
    """Bytes that an instruction reads and writes in memory, each array once.

    Of an array that is only sliced, looked up or written in part, that part counts.
    """
    if item.opcode != "fusion":
        return moved_alone(item, types)
    body = module.computations[item.called[0]]
    users = {x.name: [y for y in body if x.name in y.inputs] for x in body}
    total = 0
    for x in body:
        if x.opcode != "parameter":
            continue
        size = sum(a.bytes for a in x.arrays)
        if reads := [part_read(y, x.name) for y in used_by(x, users)]:
            size = min(size, sum(size if read is None else read for read in reads))
        total += size
    for x in roots(body):
        total += part_written(x, types) or sum(a.bytes for a in x.arrays)
    return total


def moved_alone(item, types):
    """Bytes as of `moved`, for an instruction that is no fusion."""
    own = sum(a.bytes for a in item.arrays)
    if parts.CUBLAS.search(item.target):
        own = item.arrays[0].bytes  # not the room that it may use
    if item.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * own
    if part := part_written(item, types):
        return 2 * part
    return own + sum(a.bytes for name in item.inputs for a in types[name])


def used_by(x, users):
    """Instructions that read a parameter of a fusion, also by other names of it."""
    readers = []
    for y in users[x.name]:
        readers += used_by(y, users) if y.opcode == "bitcast" else [y]
    return readers


def part_read(y, name):
    """Bytes that a reader needs of an operand; None: all of it."""
    if y.opcode in ("dynamic-slice", "slice", "gather"):
        return sum(a.bytes for a in y.arrays)
    if y.opcode == "dynamic-update-slice" and y.inputs[0] == name:
        return 0  # written in place
    return None


def part_written(x, types):
    """Bytes of what is written into an array that is there; 0: all is new."""
    if x.opcode == "dynamic-update-slice":
        return sum(a.bytes for a in types[x.inputs[1]])
    return 0


def roots(body):
    """Instructions whose results a fusion returns."""
    items = {x.name: x for x in body}
    root = next(x for x in body if x.root)
    results = [items[n] for n in root.inputs] if root.opcode == "tuple" else [root]

    def made(x):
        return made(items[x.inputs[0]]) if x.opcode == "bitcast" else x

    return [made(x) for x in results]


def estimate(module, card, rows):
    """Seconds of a step of this program on a card: a dict.

    matmul_flops; compute_seconds, of which flop_seconds and byte_seconds are what either
    would take alone, and parts, the same by part of the model; message_seconds of
    `collectives.find`'s rows, and exposed_seconds, those that no computing hides; cudnn
    and cublas: calls of either in the program's text.
    """
    types = types_of(module)
    cost = make_cost(module, card)
    by_part = parts.cycles_by_part(module, cost)
    flop, seconds, byte, message, exposed = 0, 0.0, 0.0, 0.0, 0.0
    for item, _, times in hlo.executions(module, cost):
        if not is_free(item):
            done = flops(item, module, types) * times
            flop += done
            seconds += done / peak(item, card, types)
            byte += moved(item, module, types) / card.hbm_bytes_per_second * times
    for row in rows:
        needed = row["wire"] / rate(row, card)
        message += needed * row["count"]
        exposed += max(needed - row["hidden"] / 1e9, 0.0) * row["count"]
    return dict(
        compute_seconds=sum(by_part.values()) / 1e9,
        matmul_flops=flop,
        flop_seconds=seconds,
        byte_seconds=byte,
        message_seconds=message,
        exposed_seconds=exposed,
        parts={part: value / 1e9 for part, value in by_part.items()},
        **calls(module),
    )


def rate(row, card):
    """Bytes a second that a card sends: within its host, or between hosts.

    Between hosts each of a group's members on a host has a share of the network, and all
    together carry what the group sends.
    """
    if not row["between_slices"]:
        return card.link_bytes_per_second
    return min(card.link_bytes_per_second, row["near"] * card.dcn_bytes_per_second)


def calls(module):
    """How many calls of cuDNN's attention and of cuBLAS the program's text has."""
    items = [item for body in module.computations.values() for item in body]
    return dict(
        cudnn=sum(item.target.startswith(ATTENTION) for item in items),
        cublas=sum(bool(parts.CUBLAS.search(item.target)) for item in items),
    )


def types_of(module):
    """Arrays of every instruction of a program: `{name: arrays}`."""
    items = (item for body in module.computations.values() for item in body)
    return {item.name: item.arrays for item in items}
