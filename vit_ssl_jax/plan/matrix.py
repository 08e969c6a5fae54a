"""python -m vit_ssl_jax.plan.matrix --out=DIR [--budget=SECONDS] [--only=mae_vitb,v5e]

Which recipe fits where: eleven methods x ViT-B, L and H x five TPU slices and two hosts with
GPUs, one JSON a cell and a table of them. What is there already isn't compiled again, so the same command
goes on where it stopped.
"""

import itertools
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from vit_ssl_jax import command, methods
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan.report import GIB
from vit_ssl_jax.workdir.folder import replace

SLICES = ("v4:2x2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x4")
SLICES += ("h100:8", "a100-80:8")
SIZES = ("b", "l", "h")
# Tried in turn until one fits: the recipe as it is, its state and batch spread, and that
# with activations computed anew and micro-batches.
LADDER = (
    (),
    ("--config.mesh.data=1", "--config.mesh.fsdp=-1"),
    ("--config.mesh.data=1", "--config.mesh.fsdp=-1", "--config.vit.remat=full"),
    (
        "--config.mesh.data=1",
        "--config.mesh.fsdp=-1",
        "--config.vit.remat=full",
        "--config.accum=4",
    ),
)

LEGEND = (
    "Memory of a chip, model FLOPs as a share of its peak, images a second of the slice: "
    "estimates, of GPUs a bound from above for the speed. The recipe as it is, or with F: config.mesh.fsdp over all chips, R: "
    "config.vit.remat=full, A: config.accum=4. `no`: not even with all three."
)
# Of a cell whose plan failed, too; see `plan.plan`.
KEYS = (
    "chips",
    "hbm_bytes",
    "argument_bytes",
    "temp_bytes",
    "total_bytes",
    "model_flops_per_image",
    "cycles_per_image",
    "peak_fraction",
    "collectives",
    "compile_seconds",
    "parts",
)


def fill(out, budget, only=(), say=print):
    """Compiles the cells that are missing in folder `out`, for `budget` seconds.

    `only` are parts of names, e.g. `mae_vitb` or `v5e`: a cell needs to have one of each
    kind that is given (recipe, slice). Every cell is a process of its own, so that one
    that crashes is a result, too. Writes `table.md` at the end.
    """
    start = time.perf_counter()
    for recipe, topology in cells(only):
        file = cell_file(out, recipe, topology)
        if file.exists():
            continue
        if time.perf_counter() - start >= budget:
            say("the budget is used up; the same command goes on")
            break
        figures = measure(recipe, topology)
        if figures is None:
            say(f"{recipe} {topology}: killed, for want of memory perhaps; not kept")
            continue
        replace(file, json.dumps(figures, indent=2) + "\n")
        say(f"{recipe} {topology}: {cell(figures)}")
    (out / "table.md").write_text(table(out) + "\n")


def cell_file(out, recipe, topology):
    """The file of a cell."""
    return out / f"{recipe}-{topology.replace(':', '_')}.json"


def cells(only=()):
    """All `(recipe, slice)` that are asked for."""
    recipes = [f"{m}_vit{s}" for s, m in itertools.product(SIZES, methods.names())]
    wanted = [[r for r in recipes if any(o in r for o in only)]]
    wanted += [[s for s in SLICES if any(o in s for o in only)]]
    unknown = [o for o in only if not any(o in name for name in (*recipes, *SLICES))]
    if unknown:
        raise UserError(
            f"--only: {unknown[0]} is in no recipe (METHOD_vitb, _vitl, _vith) and no "
            f"slice ({', '.join(SLICES)})"
        )
    return list(itertools.product(wanted[0] or recipes, wanted[1] or SLICES))


def measure(recipe, topology):
    """The first plan of the LADDER that fits, or the last: its JSON and how it came.

    None where a plan was killed, which says nothing of it.
    """
    tried = []
    for changes in LADDER:
        figures = plan_apart(recipe, topology, changes)
        if figures is None:
            return None
        tried.append(dict(overrides=changes, total_bytes=figures["total_bytes"]))
        if figures["fits"] or "error" in figures:  # less memory mends no error
            break
    return figures | dict(overrides=list(changes), tried=tried)


def plan_apart(recipe, topology, changes):
    """The JSON of `python -m vit_ssl_jax.plan`; if it fails, None but for `error`.

    None alone where it was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "plan.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "vit_ssl_jax.plan"),
                *(f"--config=configs/{recipe}.py", f"--topology={topology}"),
                *(f"--json={file}", *changes),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if file.exists():
            return json.loads(file.read_text())
    if done.returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return None
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    nothing = dict.fromkeys(KEYS) | dict(fits=False, recipe=recipe, topology=topology)
    return nothing | dict(error=lines[-1].removeprefix("error: "))


def cell(figures):
    """A cell in few words, see LEGEND."""
    if "error" in figures:
        return f"error: {figures['error'][:80]}".replace("|", "/")
    how = ["", " F", " FR", " FRA"][len(figures["tried"]) - 1]
    size = f"{figures['total_bytes'] / GIB:.1f} of {figures['hbm_bytes'] / GIB:.1f} GiB"
    if not figures["fits"]:
        return f"no: {size}"
    speed = f"{figures['peak_fraction']:.2f}, {figures['images_per_second']:.0f}/s"
    return f"{size}, {speed}{how}"


def table(out):
    """Markdown: a row a recipe, a column a slice, of the cells that are there."""
    lines = [
        "| recipe | " + " | ".join(SLICES) + " |",
        "|---" * (len(SLICES) + 1) + "|",
    ]
    for recipe in dict.fromkeys(recipe for recipe, _ in cells()):
        row = []
        for topology in SLICES:
            file = cell_file(out, recipe, topology)
            row.append(cell(json.loads(file.read_text())) if file.exists() else "")
        lines.append("| " + " | ".join([recipe, *row]) + " |")
    return "\n".join([*lines, "", LEGEND])


def execute(out, budget, only):
    """The command."""
    try:
        seconds = float(budget or 3600)
    except ValueError:
        raise UserError(f"--budget: {budget} is no number of seconds") from None
    folder = pathlib.Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {out} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, seconds, [part for part in only.split(",") if part])
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    command.start(
        execute,
        optional=("budget", "only"),
        out="Folder for one JSON a cell and table.md.",
        budget="Seconds after which no further cell is begun; else 3600.",
        only="Parts of names of recipes and slices, parted by commas; else all.",
    )
