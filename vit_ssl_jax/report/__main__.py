"""python -m vit_ssl_jax.report RUN... [--out=report.html]
python -m vit_ssl_jax.report --live RUNS_DIR [--host=127.0.0.1] [--port=8322]

Writes one page about a run, or several beside each other: how their configs differ, curves,
schedules, masks, health, speed, evaluations, pictures, machine, data. It opens from a disk,
without a network. With --live it is served while the runs train, and follows them.
"""

import argparse
import sys

from vit_ssl_jax import arguments
from vit_ssl_jax.errors import UserError, printable
from vit_ssl_jax.report import live, page, reading

MOST = 20_000_000  # bytes of a page, above which it says so


def report(paths, out="report.html"):
    """Writes the page of the runs at or below `paths`; returns lines to say.

    Raises UserError where a path holds no run, or `out` can't be written.
    """
    file = arguments.check_out(out, (".html",))
    page.find_library()
    data, pictures = reading.collect(paths)
    text = page.make_page(data, pictures).encode()
    try:
        file.write_bytes(text)
    except OSError as error:
        raise UserError(f"--out={out} can't be written ({error.strerror})") from error
    lines = [f"note: {note}" for note in [*data["notes"], *pictures["notes"]]]
    for run in data["runs"]:
        lines += [f"note: {run['name']}: {note}" for note in run["notes"]]
    size = f"{len(text) / 1e6:.1f} MB"
    if len(text) > MOST:
        size += (
            f", more than {MOST / 1e6:.0f}: give fewer runs for a page that opens fast"
        )
    return [*lines, f"{len(data['runs'])} runs in {file} ({size})"]


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="vit_ssl_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="RUN", help="workdirs, or above")
    parser.add_argument("--out", default="report.html", help="the page to write")
    parser.add_argument("--live", action="store_true", help="serve the page instead")
    parser.add_argument("--host", default="127.0.0.1", help="of --live; loopback alone")
    parser.add_argument(
        "--port", type=int, default=8322, help="of --live; 0: a free one"
    )
    args = parser.parse_args()
    try:
        if args.live:
            live.serve(args.paths, args.host, args.port)
        else:
            print(printable("\n".join(report(args.paths, args.out))))
    except UserError as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
