"""A kernel's final machine code, as libtpu dumps it, parsed as far as it decides time.

`*-final_bundles.txt` (from the flags `--xla_jf_dump_to` and `--xla_jf_dump_llo_text`)
lists bundles, each of instructions that are issued in one cycle:

    0x6 LB: > { %s9_s1 = sadd.s32 1, %s8_s1  ;;  %p3_p0 = scmp.lt.s32.totalorder ... }
"""

import collections
import dataclasses
import re

BUNDLE = re.compile(r"^ *(0x[0-9a-f]+|0) +([A-Z]{2})? *: *[> ]*\{", re.MULTILINE)
COMMENT = re.compile(r"/\*|\*/")
CORE = "/* core id */"  # behind the load of which of a chip's cores this is
# Comments that say what an operand, a kind, or a loaded value is.
KEPT = re.compile(r"/\*(?:\w+=| k\w+ | core id | \w+-to-\w+ )\*/")
STARTS = re.compile(r"Start(?:/End empty)? region (\d+)")
OPERATION = re.compile(r"(?:%(\w+) = )?([a-z][\w.]*) ?(.*)$", re.DOTALL)
PREDICATE = re.compile(r" ?\((!?)%(\w+)(?:, (%\w+))?\),? ?")
SCALAR = re.compile(r"_[sp]\d+$")  # a register's name: scalar or predicate
CONTROL = re.compile(r"%\w+_[sp]\d+ = |smem|sbr|dma\.|sdivrem")
MEMORY = re.compile(r"\[smem:(\[#\w+\](?: \+ \w+)?)\],?")
SIZE = re.compile(r"/\*size_in_granules=\*/(%?\w+)")
MATMUL = re.compile(r"= vmatmul([\w.]*)")
ROWS = {"bf16": 16, "f32": 8}  # of an operand's register, so of one vmatmul


class Unknown(Exception):
    """Raised where the machine code doesn't say how often something runs."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """A scalar instruction, a branch, or a DMA from or to HBM."""

    opcode: str  # "sbr" is a branch, "dma" a DMA; both have no result
    result: str  # a register's name, "smem..." for a store; "": none
    inputs: tuple  # names (str) and constants (int); "!name" negates
    predicate: str  # name, "!name" or "": always
    otherwise: str  # the result where the predicate doesn't hold; "": as it was


def parse(text):
    """Parses bundles: `[code], {region: its first bundle}`; raises Unknown for gaps."""
    heads = list(BUNDLE.finditer(text))
    bundles, targets, unnamed = [], {}, []
    for i, head in enumerate(heads):
        if int(head[1], 16) != i:
            raise Unknown(f"bundle {i:#x} is missing in the machine code")
        end = heads[i + 1].start() if i + 1 < len(heads) else len(text)
        code, comments = split_comments(text[head.end() : end])
        regions = STARTS.findall(comments)
        targets |= {f"region{region}": i for region in regions}
        if head[2] == "PF" and not regions:  # where a branch leads to, but not which
            unnamed.append(i)
        bundles.append(code)
    missing = set(re.findall(r"\$(region\d+)", "".join(bundles))) - set(targets)
    if missing and not len(missing) == len(unnamed) == 1:
        raise Unknown(f"no bundle is marked as {', '.join(sorted(missing))}")
    return bundles, targets | dict(zip(missing, unnamed))


def split_comments(text):
    """Splits text to `code, comments`; comments nest, a few stay in the code (KEPT)."""
    code, comments, depth, last = [], [], 0, 0
    for mark in COMMENT.finditer(text):
        (comments if depth else code).append(text[last : mark.start()])
        if not depth and (kept := KEPT.match(text, mark.start())):
            code.append(kept[0])
        depth += 1 if mark[0] == "/*" else -1
        last = mark.end()
    code.append(text[last:])
    return "".join(code), "".join(comments)


def control(bundles):
    """The operations that branches and DMAs depend on: `{bundle: [Operation]}`."""
    by_bundle, makers = {}, collections.defaultdict(list)
    pops = collections.Counter()
    for i, code in enumerate(bundles):
        if not CONTROL.search(code):
            continue
        for part in code.rpartition("}")[0].split(";;"):
            operation = parse_operation(part.strip())
            if not operation:
                continue
            if operation.opcode.startswith(
                "spop"
            ):  # of a queue: the next of its values
                queue = operation.inputs[0]
                operation = dataclasses.replace(
                    operation, opcode="spop", inputs=(queue, pops[queue])
                )
                pops[queue] += 1
            by_bundle.setdefault(i, []).append(operation)
            makers[operation.result].append(operation)
    needed = _closure(makers)
    kept = {
        i: [o for o in operations if not o.result or o.result in needed]
        for i, operations in by_bundle.items()
    }
    return {i: operations for i, operations in kept.items() if operations}


def _closure(makers):
    """Names that the operations without a result depend on, at any depth."""
    needed, queue = set(), list(makers[""])
    while queue:
        operation = queue.pop()
        names = (*operation.inputs, operation.predicate, operation.otherwise)
        for name in (
            {n.lstrip("!") for n in names if isinstance(n, str)} - needed - {""}
        ):
            needed.add(name)
            queue += makers.get(name, [])
    return needed


def parse_operation(text):
    """Parses an Operation; None for what is neither scalar, branch nor DMA of HBM."""
    match = OPERATION.match(text)
    if not match:
        return None
    result, opcode, rest = match[1] or "", match[2], match[3]
    predicate, otherwise = "", ""
    if test := PREDICATE.search(rest):
        predicate, otherwise = test[1] + test[2], (test[3] or "").lstrip("%")
        rest = rest[: test.start()] + " " + rest[test.end() :]
    if opcode.startswith("dma.") and (ends := hbm_ends(opcode, rest)):
        size = operand(SIZE.search(rest)[1])
        return Operation("dma", "", (size, ends), predicate, "")
    if opcode.startswith("sbr"):
        region = re.search(r"\$(region\d+)", rest)
        if not region:
            raise Unknown(f"a branch that isn't to a region: {text[:80]}")
        return Operation("sbr", "", (region[1],), predicate, "")
    if opcode.startswith("sdivrem"):
        opcode, kind = "sdivrem", re.search(r"/\* (k\w+) \*/", rest)
        opcode += f".{kind[1]}" if kind else ""
    if CORE in rest:
        return Operation("smov", result, ("core",), predicate, otherwise)
    rest = re.sub(r"/\*.*?\*/", "", rest)
    if opcode in ("sld", "sst"):
        place = MEMORY.search(rest)
        slot = f"smem {place[1]}" if place else "smem"
        if opcode == "sld":
            return Operation(opcode, result, (slot,), predicate, otherwise)
        value = operand(MEMORY.sub("", rest).strip())
        return Operation(opcode, slot, (value,), predicate, otherwise)
    if not SCALAR.search(result) and not opcode.startswith("sdivrem"):
        return None
    inputs = tuple(operand(part.strip()) for part in rest.split(",") if part.strip())
    return Operation(opcode, result, inputs, predicate, otherwise)


def hbm_ends(opcode, rest):
    """Number of a DMA's two ends in HBM: its bytes are moved there so often."""
    if opcode == "dma.general":
        route = re.search(r"/\* (\w+-to-\w+) \*/", rest)
        if not route:
            raise Unknown("a DMA that doesn't say from where to where")
        opcode = route[1]
    return opcode.count("hbm")


def operand(text):
    """Parses `%name -> "name"`, `!%name -> "!name"`, numbers; others stay unknown."""
    register = re.fullmatch(r"(!?)%(\w+)", text)
    if register:
        return register[1] + register[2]
    number = re.fullmatch(r"-?(?:0x[0-9a-f]+|\d+)", text)
    return int(text, 0) if number else f"?{text}"


def matmul_flops(code):
    """FLOPs of a bundle's matmuls: an operand's rows times a square of weights.

    The square's side is 128, or 256 on the chips (v6e on) whose instruction says "mubr".
    """
    flops = 0
    for match in MATMUL.finditer(code):
        dtype = next((d for d in ROWS if d in match[1].split(".")), None)
        if not dtype:
            raise Unknown(
                f"the instruction vmatmul{match[1]} isn't of {' or '.join(ROWS)}"
            )
        side = 256 if "mubr" in match[1] else 128
        flops += 2 * ROWS[dtype] * side**2
    return flops
