"""Every objective of configs/imagenette.py on a CPU, and the table of docs/results/imagenette.md.

python -m tests.studies.imagenette_cpu --data=DIR --workdir=DIR [--methods mae ...]

ViT-S/16 at 64 px for 20 epochs: the grid of patches is 4x4 rather than 14x14, what is measured
in pixels shrinks with the images, and I-JEPA keeps what its targets leave. DIR of the data is a folder with train/ and
test/, a folder a class. A run that is finished is only read; one that was stopped goes on.
"""

import argparse
import json
import pathlib

from tests import runs

METHODS = ("supervised", "relvit", "mae", "ijepa", "maskfeat", "rotation")
METHODS += ("colorization", "jigsaw", "context", "dino", "lejepa")
EPOCHS = 20
SHARED = {
    "epochs": float(EPOCHS),
    "optim.warmup_epochs": 1.0,
    "batch_size": 48,
    "log_every": 5,
    "data.size": (64, 64),
    "data.resize": 73,
}
CROPS = {"data.train_size": (96, 96), "data.train_resize": 96, "method.local_size": 32}
OWN = {
    "ijepa": {"method.max_context": 9, "method.min_keep": 2},
    "jigsaw": {"data.size": (96, 96), "data.resize": 110, "method.tile": 24},
    "context": {"method.tile": 16, "method.gap": 2},
    "dino": CROPS,
    "lejepa": CROPS | {"data.eval_batch_size": 80},
}


def main():
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.imagenette_cpu", description=__doc__
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    args = parser.parse_args()
    lines = []
    for method in args.methods:
        lines.append(row(method, run(args, method)))
        print(lines[-1], flush=True)
    print("\n".join([*HEAD, *lines]))


def run(args, method):
    """The summary of a run; the command is what a user would type."""
    workdir = args.workdir / method
    if not (workdir / "summary.json").exists():
        changes = SHARED | OWN.get(method, {})
        evals = ["classify.split"] if method == "supervised" else EVALS
        changes |= {f"evals.{key}": "test" for key in evals}
        flags = [f"--config.{key}={value}" for key, value in changes.items()]
        flags.append(f"--config.data.dir={args.data}")
        runs.train_logged(f"imagenette.py:{method}", workdir, *flags)
    return json.loads((workdir / "summary.json").read_text())


EVALS = ("pretext.split", "knn.queries", "linear.queries")
HEAD = [
    "| objective | loss, untrained | learned | k-NN untrained | learned | linear untrained | learned | seconds |",
    "|---|---|---|---|---|---|---|---|",
]


def row(method, summary):
    """One line of the table; a classifier of its own stands in for both probes."""
    if "classify" in summary:
        states = (summary["classify"][state] for state in ("untrained", "learned"))
        top1 = [f"{100 * rows['top1']:.1f}" for rows in states]
        cells = [method, "", "", "", "", *(f"{x} (its own head)" for x in top1)]
    else:
        losses = (summary["pretext"][state] for state in ("untrained", "learned"))
        cells = [method, *(f"{rows['loss']:.3f}" for rows in losses)]
        for probe in ("knn", "linear"):
            states = (summary[probe][state] for state in ("untrained", "learned"))
            cells += [f"{100 * value:.1f}" for value in states]
    return "| " + " | ".join([*cells, f"{summary['seconds']:.0f}"]) + " |"


if __name__ == "__main__":
    main()
