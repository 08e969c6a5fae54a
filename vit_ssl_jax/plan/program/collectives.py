"""Communication of a program: which collectives, over which mesh axes, how long."""

import math
import re

import numpy as np

from vit_ssl_jax.plan.program import hlo
from vit_ssl_jax.plan.program.replicas import axes_of, groups

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


# Their starts are (what goes in, what comes out).
TWO_SIDED = {"all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"}


def find(module, mesh, cost=None, slices=None):
    """Every collective that a step runs: a list of dicts, in the program's order.

    kind; axis (of `mesh`, `{axis: size}`); bytes of the whole array, for one execution;
    wire, those of them that leave a chip in a ring; count, executions a step;
    asynchronous; between_slices; near, members of a group in one slice; hidden, cycles
    by `cost` of what runs while it is under way, 0 where the program waits for it;
    source. `slices [devices]` says which slice each device is in.
    """
    rows = []
    cost = cost or (lambda item: item.cycles or 0)
    called = {
        name
        for items in module.computations.values()
        for item in items
        if item.opcode == "async-start"
        for name in item.called
    }
    for item, place, count in hlo.executions(module, cost):
        if place in called:
            continue  # told at its async-start
        if "_xla_megascale_transfer_type" in item.attributes and item.opcode == "send":
            rows.append(_between_slices(item, place, count, module, slices, cost))
        for inner, end in _in_flight(item, place, module):
            members = groups(inner.attributes, math.prod(mesh.values()))
            axis = axes_of(members, mesh)
            if not axis:
                continue
            kind = _kind(inner)
            size = _size(inner, kind, members.shape[1])
            if any(name.startswith("all-reduce-scatter") for name in item.called):
                kind = "reduce-scatter"  # all-reduce and a slice in one fusion
            at = np.zeros(members.max() + 1) if slices is None else np.asarray(slices)
            row = dict(kind=kind, axis=axis, bytes=size, count=count)
            row |= dict(wire=wire(kind, size, members.shape[1]))
            waits = end == item.name or '"is_sync":true' in inner.attributes
            row |= dict(asynchronous=not waits)
            row |= dict(between_slices=bool((at[members] != at[members[:, :1]]).any()))
            row |= dict(near=int(np.bincount(at[members[0]].astype(int)).max()))
            row |= dict(hidden=hlo.cycles_between(module, place, item.name, end, cost))
            rows.append(row | dict(source=inner.source or item.source or _bare(item)))
    return rows


def _between_slices(item, place, count, module, slices, cost):
    """A row of `find` for what slices exchange over the network, by way of their hosts.

    Within the slices the compiler scatters before and gathers after it.
    """
    name = re.search(r'_xla_megascale_transfer_type="(\w+)"', item.attributes)[1]
    kind = name.lower().replace("_", "-")
    meeting = re.search(r'_xla_host_transfer_rendezvous="[^"]*"', item.attributes)[0]
    back = next(
        other
        for other in module.computations[place]
        if other.opcode == "recv" and meeting in other.attributes
    )
    end = _done(back.name, place, module)
    whole = back if kind == "all-gather" else item  # what goes out is a part
    size, several = whole.arrays[0].size, len(set(slices))
    row = dict(kind=kind, axis="slices", bytes=size, count=count, near=1)
    row |= dict(wire=wire(kind, size, several), asynchronous=True, between_slices=True)
    row |= dict(hidden=hlo.cycles_between(module, place, item.name, end, cost))
    return row | dict(source=item.source or _bare(item))


def _bare(item):
    """An instruction's name without its number, so that rows alike can be merged."""
    return re.sub(r"[.\d]+$", "", item.name)


def _kind(item):
    kind = item.opcode.removesuffix("-start")
    return kind if kind in KINDS else ""


def _in_flight(item, place, module):
    """Yields `(collective, where it ends)` for all that begin at an instruction.

    By itself it ends where it begins, a `-start` at its `-done`. In a chain of fusions
    each holds the same collective; it begins at the one that says so.
    """
    if _kind(item):
        starts = item.opcode.endswith("-start")
        yield item, _done(item.name, place, module) if starts else item.name
    elif item.opcode == "async-start":
        for inner in filter(_kind, module.inner(item)):
            yield inner, _done(item.name, place, module)
    elif item.opcode == "fusion":
        inner = module.inner(item)
        begins = any(x.target == "AsyncCollectiveStart" for x in inner)
        for x in filter(_kind, inner):
            if "chain_id=" not in x.attributes:
                yield x, item.name
            elif begins:
                yield x, _chain_end(x, place, module)


def _done(name, place, module):
    """The `-done` of a `-start`, maybe by way of an `async-update`."""
    names = {name}
    for item in module.computations[place]:
        if names & set(item.inputs):
            if item.opcode.endswith("-done"):
                return item.name
            if item.opcode.endswith("-update"):
                names.add(item.name)
    return name


def _chain_end(collective, place, module):
    """The last fusion of a computation that holds a chain's collective."""
    chain = re.search(r'chain_id="[^"]*"', collective.attributes)[0]
    holders = [
        item.name
        for item in module.computations[place]
        if item.opcode == "fusion"
        and any(_kind(x) and chain in x.attributes for x in module.inner(item))
    ]
    return holders[-1]


def _size(item, kind, members):
    """Bytes of the whole array of a collective, without padding."""
    sizes = [array.size for array in item.arrays]
    if item.opcode.endswith("-start") and kind in TWO_SIDED:
        sizes = sizes[len(sizes) // 2 :]
    if item.opcode == "collective-permute-start":
        sizes = sizes[:1]
    return sum(sizes) * (members if kind == "reduce-scatter" else 1)


def wire(kind, size, members):
    """Bytes that leave a chip when `members` of a ring share an array of `size` bytes."""
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    passes = 2 if kind == "all-reduce" else 1
    return passes * size * (members - 1) // members


def merge(rows):
    """Merges rows of `find` that are alike into one, with their counts; largest first.

    `hidden` is dropped, for it differs.
    """
    merged = {}
    for row in rows:
        row = {key: value for key, value in row.items() if key != "hidden"}
        key = tuple(value for name, value in row.items() if name != "count")
        if key in merged:
            merged[key]["count"] += row["count"]
        else:
            merged[key] = row
    return sorted(merged.values(), key=lambda row: -row["wire"] * row["count"])


def estimate(rows, chip, cycles):
    """What communication costs beside `cycles` of computation: a dict, a step and chip.

    wire_bytes; cycles, at the bandwidth of one ring: two directions of a link between
    chips, or a chip's share of the network between slices; exposed_cycles, those of
    them that the cycles of what runs meanwhile don't hide; exposed_share of the step. A
    rough figure: what the compiler spreads over two torus dimensions is faster, a line
    without wrap-around and two collectives at once are slower.
    """
    total = exposed = 0.0
    for row in rows:
        bandwidth = 2 * chip.link_bytes_per_second
        if row["between_slices"]:
            bandwidth = chip.dcn_bytes_per_second
        needed = row["wire"] / bandwidth * chip.hertz
        total += needed * row["count"]
        exposed += max(needed - row["hidden"], 0.0) * row["count"]
    return dict(
        wire_bytes=sum(row["wire"] * row["count"] for row in rows),
        cycles=round(total),
        exposed_cycles=round(exposed),
        exposed_share=exposed / (cycles + exposed) if cycles + exposed else 0.0,
    )
