"""An attack on a run: what each kind of fault does to it, and whether anything is lost.

python -m tests.chaos [--kills N] [--seed S] [--quick] [--only NAME ...]

Prints a table, fault x tries x result x lost, and ends with status 1 where something is
lost that should not be. --quick takes a few tries of each; names of faults are those of the
functions. A full attack takes about an hour of two CPU cores.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np

from tests.chaos import company, ends, images, soak, storage
from tests.chaos.stage import Stage

FAULTS = (
    ends.kill_at_random,
    ends.kill_in_saves,
    ends.ask_to_stop,
    ends.insist,
    storage.damage_files,
    storage.fill_disk,
    storage.use_up_files,
    storage.forbid_writing,
    storage.remove_workdir,
    company.start_twice,
    company.kill_worker,
    company.kill_peer,
    company.change_devices,
    images.train_on_odd_folder,
    images.mutate_images,
    soak.go_on_for_long,
)


def main():
    """Runs the faults and prints their table."""
    names = [fault.__name__ for fault in FAULTS]
    parser = argparse.ArgumentParser(
        prog="tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    kills = min(args.kills, 4) if args.quick else args.kills
    print("| fault | tries | result | lost | seconds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        rng = np.random.default_rng(args.seed)
        stage = Stage(pathlib.Path(folder), rng, kills, args.quick)
        rows = [attack(stage, fault) for fault in FAULTS if fault.__name__ in args.only]
    lost = [line for row in rows for line in row.lost]
    print("\n".join(["", "lost:", *lost] if lost else []))
    sys.exit(bool(lost))


def attack(stage, fault):
    """Does one kind of fault and prints its line."""
    begun = time.perf_counter()
    row = fault(stage)
    cells = [row.fault, row.tries, row.result, len(row.lost)]
    cells.append(f"{time.perf_counter() - begun:.0f}")
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return row


if __name__ == "__main__":
    main()
