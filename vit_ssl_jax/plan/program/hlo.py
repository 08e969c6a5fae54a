"""Optimised HLO as text, parsed: computations, instructions, loops, estimated cycles.

The text is what `compiled.as_text()` gives; the XLA project documents its syntax
(https://openxla.org/xla/operation_semantics).
"""

import dataclasses
import functools
import re

from vit_ssl_jax.plan.program.arrays import Array, arrays

PART = re.compile(r"%([\w.\-]+)")
HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{\s*$")
BODY = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)$")
CALLED = re.compile(
    r"\b(?:calls|to_apply|body|true_computation|false_computation)=%([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
# Their results are names for what is there already.
NAMES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}
CALLS = {"call", "async-start"}  # run their computation as it is
KERNEL = "tpu_custom_call"  # what Pallas kernels are called


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str
    opcode: str
    operands: str  # text between the parentheses
    attributes: str  # text after them
    root: bool

    @property
    def inputs(self):
        """Names of the operands."""
        return PART.findall(self.operands)

    @property
    def arrays(self) -> list[Array]:
        """The arrays of its result."""
        return arrays(self.type)

    @property
    def called(self):
        """Names of the computations that it runs, a loop's condition left out."""
        names = []
        for single, several in CALLED.findall(self.attributes):
            names += [single] if single else PART.findall(several)
        return names

    def part(self, name):
        """The computation that a loop calls its `condition` or its `body`."""
        return re.search(rf"\b{name}=%([\w.\-]+)", self.attributes)[1]

    @property
    def cycles(self):
        """The compiler's estimate for one execution; None where it gives none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match[1]) if match else None

    @property
    def source(self):
        """The path of modules and functions it came from (`op_name`), or ""."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @property
    def target(self):
        """What a custom call calls, or ""."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match else ""


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its first line, its computations by name, and where it starts."""

    header: str
    computations: dict  # name -> [Instruction]
    entry: str

    def inner(self, instruction):
        """All instructions of the computations that it runs, nested ones too."""
        items = []
        for name in instruction.called:
            for item in self.computations.get(name, ()):
                items += [item, *self.inner(item)]
        return items

    def trips(self, loop):
        """How often a `while` runs its body; None where the text doesn't say.

        Loops count from 0 to the one constant in their condition, by the constant that
        their body adds: 1, or more where the compiler unrolled it.
        """
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        items = list(self.computations[loop.part("condition")])
        items += [item for outer in list(items) for item in self.inner(outer)]
        limits, places = _integers(items), set()
        for item in items:
            places |= set(re.findall(r"\bindex=(\d+)", item.attributes))
        if len(limits) != 1 or len(places) != 1:
            return None
        step = self._step(loop, int(places.pop()))
        return -(-limits.pop() // step) if step else None

    def _step(self, loop, place):
        """What a loop's body adds to its variable number `place`; None: unknown."""
        items = {item.name: item for item in self.computations[loop.part("body")]}
        root = next(item for item in items.values() if item.root)
        if root.opcode != "tuple":
            return None
        made = items[root.inputs[place]]
        while made.opcode in ("copy", "bitcast"):
            made = items[made.inputs[0]]
        used = [items[name] for name in made.inputs] if made.opcode == "add" else []
        steps = _integers([*used, *self.inner(made)])
        return steps.pop() if len(steps) == 1 else None


def _integers(items):
    """Values of the scalar integer constants among instructions: a set."""
    return {
        int(item.operands)
        for item in items
        if item.opcode == "constant" and re.fullmatch(r"[su]32\[\]\S*", item.type)
    }


def parse(text):
    """The Module of an optimised program's text; raises ValueError if it is none."""
    computations, entry, current = {}, "", None
    header = text.partition("\n")[0]
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (body := BODY.match(line)):
            current.append(_instruction(body[1], body[2], "ROOT %" in line[:20]))
    if not entry:
        raise ValueError("no ENTRY computation in this text")
    return Module(header, computations, entry)


def _instruction(name, text, root):
    """Parses `TYPE opcode(operands), attributes`; a tuple's type has parentheses."""
    end = _close(text, 0) if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    start = rest.index("(")
    stop = _close(rest, start)
    return Instruction(
        name, kind, rest[:start], rest[start + 1 : stop - 1], rest[stop:], root
    )


def _close(text, start):
    """The position behind the parenthesis that closes the one at `start`."""
    depth = 0
    for bracket in re.compile(r"[()]").finditer(text, start):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return bracket.end()
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")


def executions(module, cost=lambda instruction: instruction.cycles or 0):
    """What a run of the program executes: `[(Instruction, computation, times)]`.

    Loop bodies count by their trips (a loop of unknown length once), their conditions
    once more, of a conditional the branch that costs most by `cost`. What is inside a
    fusion is part of it, but for kernels, which the compiler wraps up with a collective
    that is under way.
    """
    visit = functools.partial(_visit, module, cost)
    return visit(module.entry, 1)


def _visit(module, cost, name, times):
    runs = []
    for item in module.computations[name]:
        runs.append((item, name, times))
        if item.opcode == "while":
            trips = module.trips(item)
            trips = 1 if trips is None else trips
            runs += _visit(module, cost, item.part("condition"), times * (trips + 1))
            runs += _visit(module, cost, item.part("body"), times * trips)
        elif item.opcode in CALLS:
            for called in item.called:
                runs += _visit(module, cost, called, times)
        elif item.opcode == "fusion":
            runs += [(kernel, name, times) for kernel in _kernels(module, item)]
        elif item.opcode == "conditional":
            branches = [_visit(module, cost, b, times) for b in item.called]
            runs += max(branches, key=lambda b: sum(cost(i) * n for i, _, n in b))
    return runs


def _kernels(module, fusion):
    """The kernels inside a fusion."""
    return [item for item in module.inner(fusion) if item.target == KERNEL]


def cycles_between(module, place, start, end, cost):
    """Cycles of what runs after `start` and before `end`, names in computation `place`.

    Loops and calls among it count whole. 0 where both are one.
    """
    names = [item.name for item in module.computations[place]]
    between = module.computations[place][names.index(start) + 1 : names.index(end)]
    total = 0
    for item in between:
        nested = [
            (body, 1 if item.opcode != "while" else module.trips(item) or 1)
            for body in item.called
            if item.opcode == "while" or item.opcode in CALLS
        ]
        runs = [
            (x, n) for body, n in nested for x, _, n in _visit(module, cost, body, n)
        ]
        if item.opcode == "fusion":
            runs = [(kernel, 1) for kernel in _kernels(module, item)]
        total += cost(item) + sum(cost(x) * n for x, n in runs)
    return total


def unknown_loops(module):
    """Names of the loops whose length the text doesn't say, in what is executed."""
    return [
        item.name
        for item, _, _ in executions(module)
        if item.opcode == "while" and module.trips(item) is None
    ]
