"""The numbers of a metrics.jsonl as curves, thinned to what a screen shows."""

import array
import math

import numpy as np

from vit_ssl_jax.workdir.files import is_stored, parse_row

DIGITS = 6  # of a number on the page
ALL = 200_000  # points of all curves of a page together, about 35 bytes each
MOST, LEAST = 1500, 20  # points of a curve


def read(file):
    """The curves of a metrics.jsonl: `({name: (steps [n], values [n])}, step, notes)`.

    `step` is that of its last row. Steps (int64) ascend, of one step's values the last counts. Lines that are no row are
    left out with a note, and so are values that are no numbers. Rows are never held all
    at once.
    """
    columns, damaged, wrong, newest = {}, 0, 0, 0
    for line in lines(file):
        row = parse_row(line)
        if row is None:
            damaged += bool(line.strip())
            continue
        step = newest = row.pop("step")
        for name, value in row.items():
            if not is_number(value):
                wrong += 1
                continue
            if name not in columns:
                columns[name] = array.array("q"), array.array("d")
            steps, values = columns[name]
            steps.append(step)
            values.append(value)
    curves = {name: ascending(*column) for name, column in columns.items()}
    infinite = {k for k, (_, v) in curves.items() if not np.isfinite(v).all()}
    notes = []
    if damaged:
        notes.append(f"{damaged} damaged or half-written lines of metrics.jsonl")
    if wrong:
        notes.append(f"{wrong} values of metrics.jsonl that are no numbers")
    if infinite:
        names = ", ".join(sorted(infinite))
        notes.append(f"values of {names} that are infinite or not a number: gaps")
    return curves, newest, notes


def is_number(value):
    """Whether a value of JSON is a number that a float can hold, or nan or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**63


def lines(file):
    """The lines of a file as text, one by one; none where there is no file."""
    if not file.exists():
        return
    if is_stored(file):
        yield from file.read_bytes().decode(errors="replace").splitlines()
        return
    with open(file, errors="replace") as opened:
        yield from opened


def ascending(steps, values):
    """A curve in the order of its steps, of equal ones the last."""
    steps, values = np.asarray(steps, np.int64), np.asarray(values, np.float64)
    if (np.diff(steps) > 0).all():
        return steps, values
    order = np.argsort(steps, kind="stable")
    last = np.append(np.diff(steps[order]) > 0, True)
    return steps[order][last], values[order][last]


def thin(steps, values, most):
    """A curve of at most so many points, for JSON: `{step, y}` or `{step, y, lo, hi}`.

    A longer one is cut into `most` parts of equally many points: the last step of each,
    the mean, the least and the greatest of its finite values. None is no number.
    """
    if len(steps) <= most:
        return {"step": steps.tolist(), "y": [shorten(y) for y in values.tolist()]}
    starts = np.linspace(0, len(steps), most + 1).astype(int)[:-1]
    ends = np.append(starts[1:], len(steps)) - 1
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite, starts)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    mean = np.where(counts, sums / np.maximum(counts, 1), np.nan)
    low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
    parts = {"y": mean, "lo": low, "hi": high}
    return {
        "step": steps[ends].tolist(),
        **{k: [shorten(y) for y in v.tolist()] for k, v in parts.items()},
    }


def sample(steps, values, most):
    """Points of a curve that only grows, at most so many, the last among them."""
    count = min(len(steps), most)
    chosen = np.linspace(0, len(steps) - 1, count).round().astype(int)
    return thin(steps[chosen], values[chosen], most)


def shorten(value):
    """A number to DIGITS digits, None where it is none."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def points(curves):
    """How many points a curve may have where a page has so many curves."""
    return max(LEAST, min(MOST, ALL // max(curves, 1)))


def hours(curves):
    """Wall hours of a run by step: a curve, and whether it is an estimate; or None.

    Runs say them (`perf/hours`); of older ones it is the sum of the seconds a step, which
    leaves out compilation and evaluation.
    """
    if "perf/hours" in curves:
        return curves["perf/hours"], False
    if "perf/step_seconds" not in curves:
        return None, False
    steps, seconds = curves["perf/step_seconds"]
    taken = np.diff(steps, prepend=0) * np.nan_to_num(seconds)
    return (steps, np.cumsum(taken) / 3600), True
