"""What a kernel executes: a walk through its final machine code (`plan.kernel_cost.code`).

A TensorCore issues one bundle of instructions a cycle. The walk computes the scalars
that branches and DMAs depend on, all of them constants and counters, so that loops,
the grid's among them, and skipped regions count as often as the machine would run
them, and DMAs as often as they are started. What it can't know, it raises.
"""

import bisect
import dataclasses
import operator

import numpy as np

from vit_ssl_jax.plan.kernel_cost import code
from vit_ssl_jax.plan.kernel_cost.code import Unknown

DELAY_SLOTS = 4  # bundles after a branch that are executed still
GRANULE = 32  # bytes, the unit of a DMA's size; v4: 512
LIMIT = 20_000_000  # of executed bundles that hold control flow
WORD = 0xFFFFFFFF

INTEGERS = {
    "sadd": operator.add,
    "ssub": operator.sub,
    "smul": operator.mul,
    "smulhi": lambda a, b: (a * b) >> 32,
    "sand": operator.and_,
    "sor": operator.or_,
    "sxor": operator.xor,
    "sshll": lambda a, b: a << (b & 31),
    "sshrl": lambda a, b: (a & WORD) >> (b & 31),
    "sshra": lambda a, b: a >> (b & 31),
    "smin": min,
    "smax": max,
}
PREDICATES = {
    "por": lambda a, b: a or b,
    "pand": lambda a, b: a and b,
    "pnand": lambda a, b: not (a and b),
    "pnor": lambda a, b: not (a or b),
    "pxor": operator.ne,
}


@dataclasses.dataclass(frozen=True)
class Walk:
    """What one run of a kernel executes."""

    counts: np.ndarray  # int64 [bundles of the code], how often each was executed
    bytes: int  # moved by DMA from or to HBM
    matmul_flops: int  # of the matrix unit, padding computed with

    @property
    def bundles(self):
        """Bundles executed, so cycles of issue."""
        return int(self.counts.sum())


def walk(text, core=0, granule=GRANULE):
    """Executes a kernel's `*-final_bundles.txt`; raises Unknown for what it can't know.

    `core` is which of a chip's cores, where one kernel runs on several (v4, v5p);
    `granule` the unit of a DMA's size in bytes.
    Time is counted from the code alone: no stalls of memory, no waiting for a DMA.
    """
    bundles, targets = code.parse(text)
    steps = code.control(bundles)
    addresses = sorted(steps)
    marks = np.zeros(len(bundles) + 1, np.int64)  # their cumulative sum is the counts
    state, moved = State(core), 0
    start, position, jump = 0, 0, None  # jump: (last bundle before it, target)
    for _ in range(LIMIT):
        due = addresses[position] if position < len(addresses) else len(bundles)
        if jump and due > jump[0]:
            marks[[start, jump[0] + 1]] += (1, -1)
            start, jump = jump[1], None
            position = bisect.bisect_left(addresses, start)
            continue
        if due == len(bundles):
            marks[[start, due]] += (1, -1)
            counts = np.cumsum(marks[:-1])
            flops = counts @ np.array([code.matmul_flops(b) for b in bundles])
            return Walk(counts, moved, int(flops))
        for operation in state.run(steps[due]):
            if operation.opcode == "dma":
                moved += granule * state.size(operation) * operation.inputs[1]
            elif jump:
                raise Unknown(f"bundle {due:#x} branches right after a branch")
            else:
                jump = (due + DELAY_SLOTS, targets[operation.inputs[0]])
        position += 1
    raise Unknown(f"more than {LIMIT} bundles of control flow; is a loop endless?")


class State:
    """Registers by name; those that depend on what isn't in the code are None."""

    def __init__(self, core):
        self._values, self._times, self._clock = {"core": core}, {}, 0

    def run(self, operations):
        """Executes a bundle; returns its branches and DMAs that are carried out."""
        done, written = [], []
        for operation in operations:
            if operation.opcode.endswith("phi"):  # where two paths meet: no instruction
                latest = max(operation.inputs, key=lambda n: self._times.get(n, -1))
                self._write(operation.result, self._value(latest))
        for operation in operations:
            holds = self._value(operation.predicate) if operation.predicate else True
            if operation.opcode.endswith("phi"):
                continue
            if not operation.result:
                if holds is None:
                    kind = "branch" if operation.opcode == "sbr" else "DMA"
                    raise Unknown(f"a {kind} depends on data: {operation.predicate}")
                done += [operation] if holds else []
            elif holds:
                inputs = [self._value(name) for name in operation.inputs]
                written.append((operation.result, compute(operation.opcode, inputs)))
            elif holds is None:
                written.append((operation.result, None))
            elif operation.otherwise:
                written.append((operation.result, self._value(operation.otherwise)))
        for name, value in written:
            self._write(name, value)
        return done

    def size(self, operation):
        """The size of a DMA; raises Unknown where data decide it."""
        size = self._value(operation.inputs[0])
        if size is None:
            raise Unknown("the size of a DMA depends on data")
        return size

    def _value(self, name):
        if isinstance(name, int):
            return name
        value = self._values.get(name.lstrip("!"))
        return not value if name.startswith("!") and value is not None else value

    def _write(self, name, value):
        self._clock += 1
        self._values[name], self._times[name] = value, self._clock


def compute(opcode, inputs):
    """The result of a scalar operation; None where it isn't known."""
    name, *kinds = opcode.split(".")
    if name in ("smov", "pmov", "sld", "sst"):
        return inputs[0]
    if name == "scalar_select":
        return None if inputs[0] is None else inputs[1 if inputs[0] else 2]
    if None in inputs:
        return None
    if name == "pneg":
        return not inputs[0]
    if name in PREDICATES:
        return PREDICATES[name](*inputs)
    if name == "sdivrem":
        both = divmod(inputs[0] & WORD, inputs[1] & WORD)
        return {"kDivAndRem": both, "kDiv": both[:1], "kRem": both[1:]}.get(kinds[-1])
    if name == "spop":
        values, turn = inputs
        return values[turn]
    unsigned = any(kind.startswith("u") for kind in kinds) and name != "smul"
    inputs = [i & WORD if unsigned else signed(i) for i in inputs]
    if name == "scmp":
        return getattr(operator, kinds[0])(*inputs)
    return signed(INTEGERS[name](*inputs)) if name in INTEGERS else None


def signed(value):
    """An integer as 32 bits with a sign."""
    return (int(value) + 2**31) % 2**32 - 2**31
