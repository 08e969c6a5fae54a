"""python -m vit_ssl_jax.results DIR... [--format=markdown|csv|json] [--metrics=REGEX]

Collects runs into one table: a row a recipe and metric, mean ± std over the seeds, beside
the published figure where there is one.
"""

import argparse
import csv
import io
import itertools
import json
import re
import statistics
import sys

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.results import published, runs

HEADLINES = re.compile(r"(top1|mean_per_class|miou|rmse)$")
COLUMNS = ("recipe", "settings", "evaluation", "metric", "steps", "runs", "values")


def results(paths, metrics=""):
    """Rows (dicts) of the runs below `paths`, accuracies in per cent.

    Runs are repetitions of each other where their configs, and those of the evaluation,
    differ in seeds, folders and the like alone; of runs that began with the encoder of
    another, that one's config counts, too. `metrics` is a regular expression of the
    metrics that are wanted; "" stands for accuracies, mIoU and RMSE, of a probe's grid
    only the best head's. Raises UserError where a path holds no run.
    """
    try:
        re.compile(metrics)
    except re.error as error:
        raise UserError(f"--metrics: {metrics!r} is no regular expression: {error}")
    groups = {}
    for run in itertools.chain.from_iterable(
        map(runs.read_runs, runs.find_folders(paths))
    ):
        key = json.dumps(run.settings, sort_keys=True)
        groups.setdefault((run.recipe, run.evaluation, key), []).append(run)
    rows = []
    for (recipe, evaluation, key), repetitions in groups.items():
        others = [json.loads(k) for r, e, k in groups if (r, e) == (recipe, evaluation)]
        settings = differences(json.loads(key), others)
        names = dict.fromkeys(name for run in repetitions for name in run.values)
        for name in filter(lambda n: is_wanted(n, metrics), names):
            having = [r for r in repetitions if name in r.values]
            having = [(run.step, run.values[name]) for run in having]
            rows.append(make_row(recipe, settings, evaluation, name, having))
    return rows


def make_row(recipe, settings, evaluation, name, having):
    """One line of the table, as a dict."""
    factor = 100 if name.endswith(runs.PER_CENT) else 1
    values = [factor * value for _, value in having]
    steps = sorted({step for step, _ in having})
    row = published.find(recipe, name, evaluation)
    return dict(
        recipe=recipe,
        settings=settings,
        evaluation=evaluation,
        metric=name,
        steps=steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}",
        runs=len(values),
        values=values,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        published=row and row.value,
        published_std=row and row.std,
        source="; ".join(filter(None, (row.source, row.note))) if row else "",
    )


def markdown(rows):
    """The table for people."""
    head = ("recipe", "settings", "metric", "steps", "runs", "result", "published")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        metric = "/".join(filter(None, (row["evaluation"], row["metric"])))
        beside = show(row["published"], row["published_std"])
        beside += f" ({row['source']})" if beside else ""
        cells = [row["recipe"], row["settings"], metric, row["steps"], row["runs"]]
        cells += [show(row["mean"], row["std"]), beside]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def show(mean, std):
    """Mean and deviation as text, `90.23 ± 0.09`; "" for None."""
    if mean is None:
        return ""
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def as_csv(rows):
    """The table for a spreadsheet; a row's values are parted by spaces."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"values": " ".join(map(str, row["values"]))})
    return out.getvalue().rstrip("\n")


def is_wanted(name, metrics):
    """Whether a metric belongs into the table."""
    if metrics:
        return re.search(metrics, name) is not None
    return bool(HEADLINES.search(name)) and not runs.is_single_head(name)


def differences(mine, all_of_recipe):
    """The settings in which a group of runs differs from others of its recipe."""
    keys = sorted({k for other in all_of_recipe for k in other})
    varying = [k for k in keys if len({str(o.get(k)) for o in all_of_recipe}) > 1]
    return " ".join(f"{k}={mine.get(k)}" for k in varying)


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="vit_ssl_jax.results", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="DIR", help="workdirs, or above")
    parser.add_argument(
        "--format", choices=("markdown", "csv", "json"), default="markdown"
    )
    parser.add_argument("--metrics", default="", help="regular expression of metrics")
    args = parser.parse_args()
    write = dict(
        markdown=markdown, csv=as_csv, json=lambda rows: json.dumps(rows, indent=2)
    )
    try:
        print(write[args.format](results(args.paths, args.metrics)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
