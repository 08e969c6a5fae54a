"""The fastest way to run a recipe on a slice: mesh, rematerialisation, accumulation."""

import itertools
import math
import time

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import plan, topologies

# What each choice is expected to cost, so that the likely fastest is compiled first.
REMAT = {"none": 0.0, "dots": 0.08, "full": 0.33}
FSDP, TENSOR, ACCUM = 0.03, 0.1, 0.02  # of sharded weights; a doubling; a doubling
MOST_TENSOR, MOST_ACCUM = 4, 64


def search(config, topology, batch_size, budget, say=print):
    """Compiles candidates for `budget` seconds and picks the fastest that fits: a dict.

    Candidates are all mesh shapes of the slice (sizes a power of two apart, at most 4
    over heads) x config.vit.remat x config.accum for `batch_size` images a step, the
    likely fastest first; those that need more memory than one that didn't fit are left
    out, and what a row of their mesh makes unlikely to be best comes last. Keys: fits,
    best (the row, or None), overrides (flags), rows, left (candidates that the budget
    didn't reach). Raises UserError without a slice, and where no candidate divides the
    batch.
    """
    if topology in ("", "devices"):
        raise UserError("--search: only a TPU slice has estimates: give --topology")
    devices, chip = topologies.get_devices(topology, say)
    open_list = candidates(len(devices), batch_size)
    if not open_list:
        raise UserError(
            f"--global_batch: {batch_size} images don't divide over {len(devices)} "
            f"devices, nor by fewer with config.mesh.tensor; try {len(devices)} or a "
            "multiple of it"
        )
    rows, problems, start = [], [], time.perf_counter()
    say(HEAD)
    while open_list and (not rows or time.perf_counter() - start < budget):
        choice = open_list.pop(0)
        try:
            row = measure(config, topology, batch_size, choice)
        except UserError as error:  # heads that the mesh doesn't divide, say
            problems.append(error)
            continue
        rows.append(row)
        say(line(row))
        if not row["fits"]:
            open_list = [other for other in open_list if not needs_more(other, choice)]
        open_list.sort(key=lambda other: is_unlikely(other, row, chip.hbm_bytes))
    if not rows:
        raise problems[0]
    fitting = [row for row in rows if row["fits"]]
    best = min(fitting, key=lambda row: row["seconds_per_step"], default=None)
    return dict(
        recipe=config.recipe,
        topology=topology,
        batch_size=batch_size,
        hbm_bytes=chip.hbm_bytes,
        fits=best is not None,
        best=best,
        overrides=overrides(best, batch_size) if best else [],
        rows=rows,
        left=len(open_list),
    )


def candidates(devices, batch_size):
    """Choices `{data, fsdp, tensor, remat, accum}`, the likely fastest first."""
    found = []
    twos = [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
    accums = [2**i for i in range(MOST_ACCUM.bit_length())]
    for tensor, remat, accum in itertools.product(twos, REMAT, accums):
        if tensor > MOST_TENSOR:
            continue
        ways = devices // tensor
        if batch_size % (ways * accum):
            continue
        sizes = {1, ways} | {size for size in twos if ways % size == 0}
        for fsdp in sorted(sizes):
            choice = dict(data=ways // fsdp, fsdp=fsdp, tensor=tensor)
            found.append(choice | dict(remat=remat, accum=accum))
    return sorted(found, key=expected)


def expected(choice):
    """Sorts choices by what they are expected to cost, then by what they communicate."""
    cost = REMAT[choice["remat"]] + TENSOR * math.log2(choice["tensor"])
    cost += ACCUM * math.log2(choice["accum"]) + FSDP * (choice["fsdp"] > 1)
    return cost, choice["fsdp"]


def needs_more(other, choice):
    """Whether `other` needs at least the memory of `choice`, on the same mesh."""
    heavier = REMAT[other["remat"]] <= REMAT[choice["remat"]]
    return on_same_mesh(other, choice) and heavier and other["accum"] <= choice["accum"]


def on_same_mesh(other, choice):
    """Whether two choices lay arrays out alike."""
    return all(other[axis] == choice[axis] for axis in ("data", "fsdp", "tensor"))


def is_unlikely(other, row, hbm_bytes):
    """Whether `row`, on the same mesh, tells that `other` won't be the best.

    It computes more than one that fits, or its smaller micro-batches, to which
    temporaries are in proportion, don't make it small enough.
    """
    if not on_same_mesh(other, row):
        return False
    if row["fits"]:
        more = REMAT[other["remat"]] >= REMAT[row["remat"]]
        return more and other["accum"] >= row["accum"]
    temporaries = row["temp_bytes"] * row["accum"] / other["accum"]
    too_large = row["argument_bytes"] + temporaries > hbm_bytes
    return other["remat"] == row["remat"] and too_large


def measure(config, topology, batch_size, choice):
    """A row of the table: the choice and what its plan says."""
    config = config.copy_and_resolve_references()
    config.batch_size, config.accum = batch_size, choice["accum"]
    config.vit.remat = choice["remat"]
    config.mesh.update({axis: choice[axis] for axis in ("data", "fsdp", "tensor")})
    found = plan(config, topology, say=lambda text: None)
    keys = ("fits", "argument_bytes", "temp_bytes", "total_bytes")
    keys += ("cycles_per_image", "peak_fraction")
    keys += ("seconds_per_step", "images_per_second", "compile_seconds")
    exposed = (
        found["communication"]["exposed_share"] if found["communication"] else None
    )
    return choice | {key: found[key] for key in keys} | dict(exposed_share=exposed)


def overrides(row, batch_size):
    """The flags that make a run this row."""
    return [
        f"--config.batch_size={batch_size}",
        f"--config.accum={row['accum']}",
        f"--config.vit.remat={row['remat']}",
        *(f"--config.mesh.{axis}={row[axis]}" for axis in ("data", "fsdp", "tensor")),
    ]


HEAD = (
    "| data | fsdp | tensor | remat | accum | fits | GiB | cycles an image | of peak | "
    "exposed | images/s | compiled in |"
)


def line(row):
    """A row as Markdown."""
    known = ["", "", "", ""]
    if row["cycles_per_image"] is not None:
        known = [f"{row['cycles_per_image']:.0f}", f"{row['peak_fraction']:.3f}"]
        known += [f"{100 * row['exposed_share']:.1f} %"]
        known += [f"{row['images_per_second']:.0f}"]
    cells = [row[key] for key in ("data", "fsdp", "tensor", "remat", "accum")]
    cells += ["yes" if row["fits"] else "no", f"{row['total_bytes'] / 2**30:.2f}"]
    cells += [*known, f"{row['compile_seconds']:.0f} s"]
    return "| " + " | ".join(map(str, cells)) + " |"


def describe(found):
    """The table, and what to paste or what would help."""
    rows = sorted(
        found["rows"],
        key=lambda row: (
            not row["fits"],
            row["seconds_per_step"] or row["total_bytes"],
        ),
    )
    text = [f"{found['recipe']} on {found['topology']}, {found['batch_size']} a step"]
    text += [HEAD, "|---" * (HEAD.count("|") - 1) + "|", *map(line, rows)]
    if found["left"]:
        text.append(f"{found['left']} candidates weren't compiled within --budget")
    if found["fits"]:
        text.append("fastest by estimate: " + " ".join(found["overrides"]))
    else:
        least = min(row["total_bytes"] for row in found["rows"]) / 2**30
        text.append(
            f"nothing fits: the least was {least:.2f} of "
            f"{found['hbm_bytes'] / 2**30:.2f} GiB. What would help: "
            + ("a larger --budget; " if found["left"] else "")
            + "a smaller --global_batch, a larger slice, chips with more memory"
        )
    return "\n".join(text)
