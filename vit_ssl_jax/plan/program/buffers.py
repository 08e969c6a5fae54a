"""The largest arrays of a program, which fill its memory, by where they come from."""

import re

from vit_ssl_jax.plan.program import hlo
from vit_ssl_jax.plan.program.parts import MOVES

IN_PLACE = {"dynamic-update-slice", "scatter"}  # write into what they get
MADE_ELSEWHERE = hlo.NAMES | {"AllocateBuffer"}


def arguments(module):
    """The program's arguments, largest first: `[{name, array, bytes}]`.

    Names are paths into the state and the batch, `state.params/encoder/cls`; bytes are
    one chip's, padding with them.
    """
    rows = []
    for item in module.computations[module.entry]:
        if item.opcode == "parameter":
            (array,) = item.arrays
            rows.append(
                dict(
                    name=path_of(item), array=str(array), bytes=array.bytes, temp=False
                )
            )
    return sorted(rows, key=lambda row: -row["bytes"])


def path_of(parameter):
    """Path of an argument: jax's `state.params['encoder']['cls']` with slashes."""
    path = parameter.source.replace("\\", "")
    return re.sub(r"\['([^']*)'\]", r"/\1", path) or parameter.name


def temporaries(module, count):
    """The largest arrays that the program makes in HBM: `[{name, array, bytes}]`.

    Name is the source of what fills an array; one that a loop fills slice by slice is
    named by its slices' source. Those that become the new state are left out, for they
    lie where the old one was. They aren't all alive at once.
    """
    rows = {}
    outputs = _outputs(module)
    for item, place, _ in hlo.executions(module):
        if item.opcode in MADE_ELSEWHERE or item.target in MADE_ELSEWHERE:
            continue
        if item.opcode.endswith(("-start", "-done")):
            continue  # transfers
        if place == module.entry and item.name in outputs:
            continue
        shared = _shared(item)
        for index, array in enumerate(item.arrays):
            if array.space or not array.shape or index in shared:
                continue
            name = _filler(item, index, place, module) or item.name
            rows[name, str(array)] = array.bytes
    largest = sorted(rows.items(), key=lambda pair: -pair[1])[:count]
    return [
        dict(name=name, array=array, bytes=size, temp=True)
        for (name, array), size in largest
    ]


def _shared(item):
    """Positions of an instruction's results that lie where an operand did."""
    match = re.search(r"output_to_operand_aliasing=\{(.*?\})\}", item.attributes)
    return {int(n) for n in re.findall(r"\{(\d+)\}: \(", match[1])} if match else set()


def _outputs(module):
    """Names of the instructions whose results are the program's, by way of moves."""
    items = {item.name: item for item in module.computations[module.entry]}
    open_names = [item.name for item in items.values() if item.root]
    names = set()
    while open_names:
        item = items[open_names.pop()]
        for name in item.inputs:
            if name in items and name not in names:
                names.add(name)
                if items[name].opcode in ("get-tuple-element", "bitcast", "tuple"):
                    open_names.append(name)
    return names


def _filler(item, index, place, module):
    """The source of what is written into result `index` of an instruction, or "".

    `place` is the computation that the instruction is in.
    """
    if item.opcode == "get-tuple-element":
        position = int(re.search(r"index=(\d+)", item.attributes)[1])
        return _filled_by(item.inputs[0], position, place, module)
    if item.opcode != "fusion":
        return item.source
    body = item.called[0]
    inner = {x.name: x for x in module.computations[body]}
    made = next(x for x in inner.values() if x.root)
    if made.opcode == "tuple":
        # A reduction of several arrays is one input.
        made = [inner[n] for n in made.inputs for _ in inner[n].arrays][index]
    while made.opcode in MOVES and made.opcode not in ("parameter", "constant"):
        made = inner[made.inputs[1 if made.opcode in IN_PLACE else 0]]
    if made.opcode == "parameter":
        outside = item.inputs[int(made.operands)]
        return _filled_by(outside, 0, place, module) or item.source
    while not made.source and made.inputs and made.opcode != "parameter":
        made = inner[made.inputs[0]]
    return made.source or item.source


def _filled_by(name, index, place, module):
    """The `_filler` of an instruction that is given by its name."""
    for item in module.computations[place]:
        if item.name == name:
            return _filler(item, index, place, module)
    return ""


def not_donated(module):
    """Paths of the state's arrays that the step doesn't overwrite in place."""
    aliased = {
        int(number)
        for number in re.findall(r"\}: \((\d+), \{\}, \w+-alias\)", module.header)
    }
    return [
        path_of(item)
        for item in module.computations[module.entry]
        if item.opcode == "parameter"
        and item.source.startswith("state")
        and int(item.operands) not in aliased
    ]
