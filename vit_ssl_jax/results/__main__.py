"""python -m vit_ssl_jax.results DIR... [--format=markdown|csv|json] [--metrics=REGEX]

Collects runs into one table: a row a recipe and metric, mean ± std over the seeds, beside
the published figure where there is one.
"""

import argparse
import csv
import io
import json
import logging
import re
import sys

from vit_ssl_jax.errors import UserError, printable
from vit_ssl_jax.results import runs, table
from vit_ssl_jax.results.table import show

COLUMNS = ("recipe", "settings", "evaluation", "metric", "steps", "runs", "values")


def results(paths, metrics=""):
    """Rows (dicts) of the runs below `paths`, accuracies in per cent.

    Runs are repetitions of each other where their configs, and those of the evaluation,
    differ in seeds, folders and the like alone; of runs that began with the encoder of
    another, that one's config counts, too. `metrics` is a regular expression of the
    metrics that are wanted; "" stands for accuracies, mIoU and RMSE, of a probe's grid
    only the best head's. A run that can't be read is left out, with a line. Raises
    UserError where a path holds no run, or none that can be read.
    """
    try:
        re.compile(metrics)
    except re.error as error:
        raise UserError(f"--metrics: {metrics!r} is no regular expression: {error}")
    found, unread = [], []
    for folder in runs.find_folders(paths):
        try:
            found += runs.read_runs(folder)
        except UserError as error:
            unread.append(error)
            text = printable(str(error))
            logging.getLogger(__name__).warning("left out: %s", text)
    if unread and not found:
        raise unread[0]
    return table.tabulate(found, metrics)


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


def as_csv(rows):
    """The table for a spreadsheet; a row's values are parted by spaces."""
    out = io.StringIO()
    names = list(rows[0]) if rows else COLUMNS
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row | {"values": " ".join(map(str, row["values"]))})
    return out.getvalue().rstrip("\n")


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
        print(printable(write[args.format](results(args.paths, args.metrics))))
    except UserError as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
