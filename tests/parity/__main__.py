"""Prints the ledger of a folder of golden vectors."""

import argparse
import collections
import dataclasses
import json
import pathlib
import sys

from tests import parity
from tests.parity import ledger


def main():
    """Prints rows and counts; 0 when all rows are ok, else 1."""
    parser = argparse.ArgumentParser(prog="tests.parity", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, help="also writes the rows here")
    parser.add_argument(
        "--summary", action="store_true", help="a Markdown table by case instead"
    )
    args = parser.parse_args()
    rows = parity.check_folder(args.folder)
    print(ledger.summarise(rows) if args.summary else ledger.format_rows(rows))
    counts = collections.Counter(row.verdict for row in rows)
    verdicts = (ledger.OK, ledger.FAIL, ledger.UNCOVERED)
    print(f"{len(rows)} rows: " + ", ".join(f"{counts[v]} {v}" for v in verdicts))
    if args.json:
        text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
        args.json.write_text(text + "\n")
    return int(not rows or counts[ledger.OK] < len(rows))


sys.exit(main())
