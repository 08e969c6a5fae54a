"""Every objective for 90 seconds on a CPU, and the table of docs/results/pretext_cpu.md.

python -m tests.studies.pretext_cpu --data=DIR --workdir=DIR [--seeds 0 1 2] [--methods mae ...]
python -m tests.studies.pretext_cpu ... --longer    # those that need more than 90 seconds

DIR of the data holds CIFAR-10 prepared for TFDS. A run that is finished already is only
read; one that was stopped goes on.
"""

import argparse
import json
import pathlib
import statistics

from tests import runs

CHANCE = {  # metric that is watched -> its value by chance
    "supervised": ("top1", "10.0 %"),
    "relvit": ("relations_top1", "19.1 % (always the commonest)"),
    "mae": ("loss", "0.98 (every patch's mean)"),
    "ijepa": ("loss", "none: the target moves"),
    "maskfeat": ("loss", "0.111 (zeros)"),
    "rotation": ("top1", "25.0 %"),
    "colorization": ("top1", "0.4 % of 261 bins, 28.1 % always grey"),
    "jigsaw": ("top1", "16.7 % of 6"),
    "context": ("top1", "12.5 % of 8"),
    "dino": ("divergence", "none: the target moves"),
    "lejepa": ("loss", "none"),
}

LONGER = {
    "ijepa": {"steps": 6000, "batch_size": 64, "method.ema_start": 0.996},
    "colorization": {"steps": 1600, "method.rebalance": 1.0},
    "jigsaw": {"steps": 4000},
}
FASTER = {"vit.dtype": "bfloat16", "data.device_cache": True, "checkpoint_every": 1000}


def main():
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.pretext_cpu", description=__doc__
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--longer", action="store_true")
    args = parser.parse_args()
    lines = []
    for method in args.methods or (LONGER if args.longer else CHANCE):
        summaries = [run(args, method, seed) for seed in args.seeds]
        lines.append(row(method, summaries))
        print(lines[-1], flush=True)
    print("\n".join([*HEAD, *lines]))


def run(args, method, seed):
    """The summary of a run; the command is what a user would type."""
    workdir = args.workdir / f"{method}{'_longer' * args.longer}_{seed}"
    if not (workdir / "summary.json").exists():
        flags = [f"--config.data.dir={args.data}", f"--config.seed={seed}"]
        changes = FASTER | LONGER[method] if args.longer else {}
        flags += [f"--config.{key}={value}" for key, value in changes.items()]
        runs.train_logged(f"pretext_cpu.py:{method}", workdir, *flags)
    return json.loads((workdir / "summary.json").read_text())


HEAD = [
    "| objective | metric, by chance | untrained | learned "
    + "| k-NN untrained | learned | gain, by seed | mean | seconds |",
    "|---|---|---|---|---|---|---|---|---|",
]


def row(method, summaries):
    """One line of the table: means over the seeds, and each seed's gain in k-NN."""
    metric, chance = CHANCE[method]

    def mean(values):
        return statistics.mean(values)

    def watched(state):
        value = mean(s["pretext"][state][metric] for s in summaries)
        return f"{100 * value:.1f} %" if metric.endswith("top1") else f"{value:.3f}"

    knn = {k: [100 * s["knn"][k] for s in summaries] for k in ("untrained", "learned")}
    gains = [a - b for a, b in zip(knn["learned"], knn["untrained"])]
    cells = [
        method,
        f"{metric}: {chance}",
        watched("untrained"),
        watched("learned"),
        f"{mean(knn['untrained']):.1f}",
        f"{mean(knn['learned']):.1f}",
        " ".join(f"{g:+.1f}" for g in gains),
        f"{mean(gains):+.1f}",
        f"{mean(s['seconds'] for s in summaries):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
