"""RelViT's claim at a CPU's scale, and the table of docs/results/relvit_cpu.md.

python -m tests.studies.relvit_cpu --data=DIR --workdir=DIR [--seeds 0 1 2] [--epochs 100 9]

A table each number of epochs of a phase. DIR of the data holds CIFAR-10 prepared for TFDS. A run that is finished already is only
read; one that was stopped goes on.
"""

import argparse
import pathlib
import statistics
import time

from tests import runs

RECIPES = ("upstream", "finetune", "scratch", "supervised")
NAMES = {
    "finetune": "relations + positions, then fine-tuned",
    "scratch": "the same fine-tuning without pre-training",
    "supervised": "supervised alone, the budget of both phases",
}


def main():
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.relvit_cpu", description=__doc__
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", nargs="+", type=int, default=[100, 9])
    args = parser.parse_args()
    begun = time.perf_counter()
    for epochs in args.epochs:
        print_table(args, epochs)
    print(f"{(time.perf_counter() - begun) / 60:.1f} minutes in all")


def print_table(args, epochs):
    """The runs of a number of epochs a phase."""
    rows = {recipe: [] for recipe in RECIPES}
    for seed in args.seeds:
        for recipe in RECIPES:
            rows[recipe].append(last(run(args, recipe, epochs, seed)))
            print(recipe, epochs, seed, rows[recipe][-1], flush=True)
    print(f"| {epochs} epochs a phase | top-1, by seed | mean ± std |")
    print("|---|---|---|")
    for recipe, name in NAMES.items():
        values = [100 * row["top1"] for row in rows[recipe]]
        cells = [name, " ".join(f"{v:.2f}" for v in values), spread(values)]
        print("| " + " | ".join(cells) + " |")
    solved = [100 * row["relations_top1"] for row in rows["upstream"]]
    print(f"relations solved on the test images: {spread(solved)} %")


def run(args, recipe, epochs, seed):
    """The workdir of a finished run; the command is what a user would type."""
    workdir = args.workdir / f"{recipe}_{epochs}_{seed}"
    if not any("eval" in key for row in runs.metrics(workdir) for key in row):
        total = 2 * epochs if recipe == "supervised" else epochs
        flags = [f"--config.data.dir={args.data}", f"--config.seed={seed}"]
        flags += [f"--config.epochs={total}"]
        flags += [f"--config.optim.warmup_epochs={total / 10}"]
        if recipe == "finetune":
            upstream = args.workdir / f"upstream_{epochs}_{seed}"
            flags.append(f"--config.init_from={upstream}")
        runs.train_logged(f"relvit_cpu.py:{recipe}", workdir, *flags)
    return workdir


def last(workdir):
    """The closing evaluation's numbers by the end of their names."""
    found = {}
    for row in runs.metrics(workdir):
        found |= {k.split("/")[-1]: v for k, v in row.items() if k.startswith("eval/")}
    return found


def spread(values):
    """Mean and sample deviation."""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
