"""The fastest way to run a recipe on a topology: mesh, rematerialisation, accumulation."""

import itertools
import math
import time

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import cards, plan, topologies

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
    best (the row, or None), overrides (flags), rows, refused (with their `error`), left
    (candidates that the budget didn't reach), would_fit (None where something does).
    Raises UserError without a slice, and where nothing can be tried.
    """
    if topology in ("", "devices"):
        raise UserError("--search: only named devices have estimates: give --topology")
    devices, chip = topologies.get_devices(topology, say)
    open_list = candidates(len(devices), batch_size)
    if not open_list:
        raise UserError(
            f"--global_batch: {batch_size} images don't divide over {len(devices)} devices"
            f", nor by fewer with config.mesh.tensor; try a multiple of {len(devices)}"
        )
    rows, refused, start = [], [], time.perf_counter()
    say(HEAD)
    while open_list and (not (rows or refused) or time.perf_counter() - start < budget):
        choice = open_list.pop(0)
        try:
            row = measure(config, topology, batch_size, choice)
        except UserError as error:  # heads that the mesh doesn't divide, say
            refused.append(choice | dict(error=str(error)))
            continue
        rows.append(row)
        say(line(row))
        if not row["fits"]:
            open_list = [other for other in open_list if not needs_more(other, row)]
        open_list.sort(key=lambda other: is_unlikely(other, row, chip.hbm_bytes))
    if not rows:
        raise UserError(refused[0]["error"])
    best = min((row for row in rows if row["fits"]), key=rank, default=None)
    return dict(
        recipe=config.recipe,
        topology=topology,
        batch_size=batch_size,
        hbm_bytes=chip.hbm_bytes,
        fits=best is not None,
        best=best,
        overrides=overrides(best, batch_size) if best else [],
        rows=rows,
        refused=refused,
        left=len(open_list),
        would_fit=None if best else would_fit(rows, batch_size, chip),
    )


def rank(row):
    """Sort key of rows that fit: the fastest first, breakers of contracts last."""
    return bool(row["violations"]), row["seconds_per_step"]


def would_fit(rows, batch_size, chip):
    """What would fit where none of `rows` does, by proportion and not compiled: a dict.

    From the row that needs least. batch_size: the largest, its temporaries in
    proportion, 0 where the state alone is too large; times: so many times the chips, None
    where the state is whole on each and too large; chips: kinds with enough memory.
    """
    least = min(rows, key=lambda row: row["total_bytes"])
    state, temporaries = least["argument_bytes"], max(least["temp_bytes"], 1)
    spare = max(chip.hbm_bytes - state, 0)
    ways = least["data"] * least["fsdp"] * least["accum"]
    if least["fsdp"] > 1:
        times = math.ceil(least["total_bytes"] / chip.hbm_bytes)
    else:
        times = math.ceil(temporaries / spare) if spare else None
    return dict(
        least_bytes=least["total_bytes"],
        batch_size=int(batch_size * spare / temporaries) // ways * ways,
        times=times,
        chips=[
            name
            for name, other in alike(chip).items()
            if other.hbm_bytes >= least["total_bytes"]
        ],
    )


def alike(chip):
    """All TPUs for a TPU, all GPUs for a GPU: `{name: Chip or Card}`."""
    return cards.CARDS if isinstance(chip, cards.Card) else topologies.CHIPS


def candidates(devices, batch_size):
    """Choices `{data, fsdp, tensor, remat, accum}`, the likely fastest first."""
    choices = []
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
            choices.append(choice | dict(remat=remat, accum=accum))
    return sorted(choices, key=expected)


def expected(choice):
    """Sort key of choices: what they should cost, then what they communicate."""
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
    """Plans a choice: a row of the table, the choice and what its plan says."""
    config = config.copy_and_resolve_references()
    config.batch_size, config.accum = batch_size, choice["accum"]
    config.vit.remat = choice["remat"]
    config.mesh.update({axis: choice[axis] for axis in ("data", "fsdp", "tensor")})
    planned = plan(config, topology, say=lambda text: None)
    keys = ("fits", "violations", "argument_bytes", "temp_bytes", "total_bytes")
    keys += ("cycles_per_image", "peak_fraction")
    keys += ("seconds_per_step", "images_per_second", "compile_seconds")
    exposed = (
        planned["communication"]["exposed_share"] if planned["communication"] else None
    )
    return choice | {key: planned[key] for key in keys} | dict(exposed_share=exposed)


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
    if row["seconds_per_step"] is not None:
        cycles = row["cycles_per_image"]  # a GPU has none
        known = ["" if cycles is None else f"{cycles:.0f}"]
        known += [f"{row['peak_fraction']:.3f}"]
        known += [f"{100 * row['exposed_share']:.1f} %"]
        known += [f"{row['images_per_second']:.0f}"]
    cells = [row[key] for key in ("data", "fsdp", "tensor", "remat", "accum")]
    fits = "yes, BREAKS CONTRACTS" if row["violations"] else "yes"
    cells += [fits if row["fits"] else "no", f"{row['total_bytes'] / 2**30:.2f}"]
    cells += [*known, f"{row['compile_seconds']:.0f} s"]
    return "| " + " | ".join(map(str, cells)) + " |"


def describe(result):
    """Text on what `search` returned: the table, what to paste or what would help."""
    rows = sorted(
        result["rows"],
        key=lambda row: (
            not row["fits"],
            row["seconds_per_step"] or row["total_bytes"],
        ),
    )
    text = [
        f"{result['recipe']} on {result['topology']}, {result['batch_size']} a step"
    ]
    text += [HEAD, "|---" * (HEAD.count("|") - 1) + "|", *map(line, rows)]
    for error in dict.fromkeys(row["error"] for row in result["refused"]):
        times = sum(row["error"] == error for row in result["refused"])
        text.append(f"refused, {times} of the candidates: {error.splitlines()[0]}")
    if result["left"]:
        text.append(f"{result['left']} candidates weren't compiled within --budget")
    if result["fits"]:
        but = ", though it breaks contracts" if result["best"]["violations"] else ""
        text.append(f"fastest by estimate{but}: {' '.join(result['overrides'])}")
    else:
        text.append(
            "nothing fits: the least was "
            f"{result['would_fit']['least_bytes'] / 2**30:.2f} of "
            f"{result['hbm_bytes'] / 2**30:.2f} GiB. What would, by proportion and not "
            f"compiled: {'; '.join(ways_out(result)) or 'only a smaller model'}"
        )
    return "\n".join(text)


def ways_out(result):
    """Yields what `would_fit` says, in words."""
    would = result["would_fit"]
    if result["left"]:
        yield "perhaps what a larger --budget reaches"
    if would["batch_size"]:
        yield f"--global_batch={would['batch_size']}"
    if would["times"]:
        yield f"{would['times']} times as many chips"
    if would["chips"]:
        yield f"as many chips of {', '.join(would['chips'])}"
