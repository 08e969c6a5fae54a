"""Which devices a collective joins, from XLA's ways to write that down."""

import math
import re

import numpy as np

INTS = re.compile(r"\d+")
MESH = re.compile(r"mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")


def groups(attributes, devices):
    """Groups of devices that a collective joins: device numbers `[groups members]`.

    `attributes` of a collective instruction hold replica_groups in one of XLA's forms
    (`{{0,1},{2,3}}`, `[2,2]<=[4]T(1,0)`, a mesh and its axes) or source_target_pairs.
    Raises ValueError for another.
    """
    match = re.search(r"(?:replica_groups|source_target_pairs)=(.*)", attributes)
    text = match[1] if match else "{}"
    if text.startswith("{{"):
        rows = text[1 : text.index("}}") + 1]
        return np.array([_ints(row) for row in re.findall(r"\{([\d,]+)\}", rows)])
    if text.startswith("{}"):
        return np.arange(devices)[None]
    if text.startswith("mesh"):
        return _mesh_groups(text)
    if iota := re.match(r"\[([\d,]+)\](<=\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _iota(iota[2].removeprefix("<=")).reshape(_ints(iota[1]))
    raise ValueError(f"replica groups of an unknown form: {text[:80]}")


def _ints(text):
    return [int(n) for n in INTS.findall(text)]


def _iota(text):
    """Reads `[2,4]T(1,0)`: numbers counted up in that shape, transposed."""
    shape, _, order = text.partition("T")
    numbers = np.arange(math.prod(_ints(shape))).reshape(_ints(shape))
    return numbers.transpose(_ints(order)) if order else numbers


def _mesh_groups(text):
    """Reads `mesh['a'=4,'b'=2], device_ids=(...) {'a','b':(1)2}`.

    `(p)s` is a part of an axis.
    """
    match = MESH.match(text)
    if not match:
        raise ValueError(f"replica groups of an unknown form: {text[:80]}")
    axes = [pair.split("=") for pair in match[1].split(",")]
    sizes = {name: int(size) for name, size in axes}
    ids = match[2] or ""
    numbers = _iota(ids) if ids.startswith("[") else np.array(_ints(ids), int)
    if not ids:
        numbers = np.arange(math.prod(sizes.values()))
    split, chosen = [], []
    picked = [axis.partition(":") for axis in match[3].split(",") if axis]
    for name, size in sizes.items():
        parts = [(1, size)] if any(n == name and not p for n, _, p in picked) else []
        parts += [tuple(_ints(p)) for n, _, p in picked if n == name and p]
        before = 1
        for start, length in sorted(parts):
            split += [start // before, length]
            chosen.append(len(split) - 1)
            before = start * length
        split.append(size // before)
    numbers = np.moveaxis(
        numbers.reshape(split), chosen, range(len(split) - len(chosen), len(split))
    )
    return numbers.reshape(-1, math.prod(split[i] for i in chosen))


def axes_of(members, mesh):
    """Names of the mesh axes, parted by +, along which members of a group differ.

    `members [groups members]` number the devices of `mesh`, `{axis: size}`, in order.
    """
    places = np.array(np.unravel_index(members, tuple(mesh.values())))
    varies = (places != places[:, :, :1]).any((1, 2))
    return "+".join(name for name, moves in zip(mesh, varies) if moves)
