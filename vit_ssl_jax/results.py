"""python -m vit_ssl_jax.results DIR... [--format=markdown|csv|json] [--metrics=REGEX]

Collects runs into one table: a row a recipe and metric, mean ± std over the seeds, beside
the published figure where there is one.
"""

import argparse
import csv
import io
import json
import pathlib
import re
import statistics
import sys

from vit_ssl_jax import published
from vit_ssl_jax.errors import UserError

# What may differ between runs that are repetitions of each other.
FREE = {
    *("seed", "init_from", "log_every", "checkpoint_every", "keep", "mesh", "accum"),
    *("data.dir", "data.threads", "data.eval_batch_size", "summary"),
}
ACCURACIES = ("top1", "top5", "mean_per_class")
HEADLINES = re.compile(r"(top1|mean_per_class)$")
COLUMNS = ("recipe", "settings", "evaluation", "metric", "steps", "runs", "values")


def results(paths, metrics=""):
    """Rows (dicts) of the runs below `paths`, accuracies in per cent.

    Runs are repetitions of each other where their configs differ in seed, folders and
    the like alone. `metrics` is a regular expression of the metrics that are wanted; ""
    stands for accuracies, of a probe's grid only the best head's. Raises UserError
    where a path holds no run.
    """
    groups = {}
    for folder in find_runs(paths):
        config = read_json(folder / "config.json")
        flat = flatten(config)
        key = {k: v for k, v in flat.items() if not is_free(k)}
        for evaluation, step, values in read_values(folder):
            which = (config["recipe"], evaluation, json.dumps(key, sort_keys=True))
            groups.setdefault(which, []).append((step, values))
    rows = []
    for (recipe, evaluation, key), found in groups.items():
        others = [json.loads(k) for r, e, k in groups if (r, e) == (recipe, evaluation)]
        settings = differences(json.loads(key), others)
        names = dict.fromkeys(name for _, values in found for name in values)
        for name in filter(lambda n: is_wanted(n, metrics), names):
            having = [(step, values[name]) for step, values in found if name in values]
            rows.append(make_row(recipe, settings, evaluation, name, having))
    return rows


def find_runs(paths):
    """Workdirs of runs: the paths themselves, and what lies below them."""
    found = []
    for path in map(pathlib.Path, paths):
        if (path / "config.json").exists():
            found.append(path)
            continue
        below = sorted(file.parent for file in path.glob("**/config.json"))
        if not below:
            raise UserError(
                f"{path} holds no run: there is no config.json at any depth"
            )
        found += below
    return list(dict.fromkeys(found))


def read_values(folder):
    """What a run measured: `(evaluation or "", step, {metric: value})`.

    The newest values of its own evaluators, and of every evaluation by the evaluate
    command that of the latest checkpoint.
    """
    newest, step = {}, 0
    file = folder / "metrics.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        mine = {k[5:]: v for k, v in values.items() if k.startswith("eval/")}
        newest |= mine
        step = values["step"] if mine else step
    found = {"": (step, newest)} if newest else {}
    for file in folder.glob("evaluations/*.json"):
        one = read_json(file)
        if one["step"] >= found.get(one["evaluation"], (-1,))[0]:
            found[one["evaluation"]] = (one["step"], one["results"])
    return [(evaluation, *found[evaluation]) for evaluation in sorted(found)]


def make_row(recipe, settings, evaluation, name, having):
    """One line of the table, as a dict."""
    factor = 100 if name.endswith(ACCURACIES) else 1
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
    """`90.23 ± 0.09`; nothing for None."""
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


def is_free(key):
    """Whether repetitions of a run may differ in a key."""
    return any(key == free or key.startswith(free + ".") for free in FREE)


def is_wanted(name, metrics):
    """Whether a metric belongs into the table."""
    if metrics:
        return re.search(metrics, name) is not None
    single_head = "/probe" in f"/{name}" and "/best" not in name
    return bool(HEADLINES.search(name)) and not single_head


def differences(mine, all_of_recipe):
    """The settings in which a group of runs differs from others of its recipe."""
    keys = sorted({k for other in all_of_recipe for k in other})
    told = [k for k in keys if len({str(o.get(k)) for o in all_of_recipe}) > 1]
    return " ".join(f"{k}={mine.get(k)}" for k in told)


def flatten(tree, prefix=""):
    """Nested dicts as one, with dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = (flatten(v, f"{prefix}.{k}" if prefix else k) for k, v in tree.items())
    return {k: v for part in parts for k, v in part.items()}


def read_json(file):
    """A JSON file; raises UserError where it is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read ({error}); is the run whole?") from error


def main():
    """The command."""
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
