"""Golden vectors, tolerances and rows."""

import dataclasses
import json
import pathlib

import numpy as np

OK, FAIL, UNCOVERED = "ok", "FAIL", "not covered"


@dataclasses.dataclass(frozen=True)
class Golden:
    """One case: a JSON with `config`, and arrays."""

    folder: pathlib.Path
    case: str
    json: dict
    arrays: dict

    @property
    def kind(self):
        """What the case is: the name in its JSON, or the file's where it has none."""
        return self.json.get("case", self.case)

    @property
    def config(self):
        """Numbers of the case."""
        return self.json["config"]

    def tensors(self, prefix):
        """Arrays whose name starts with `prefix`, without it."""
        return {
            name.removeprefix(prefix): x
            for name, x in self.arrays.items()
            if name.startswith(prefix)
        }

    def sibling(self, kind):
        """The case of a kind that this one belongs to; itself where there is none.

        Of several it is one whose config agrees, then one whose file is named alike.
        """
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        cases = [load(self.folder, name, arrays=False) for name in names]
        beside = self.case.replace(self.kind, kind), kind
        cases = [
            (not agree(c.config, self.config), *(c.case != name for name in beside), i)
            for i, c in enumerate(cases)
            if c.kind == kind
        ]
        return load(self.folder, names[min(cases)[-1]]) if cases else self

    def with_inputs_of(self, case):
        """This case with `in/`, `sd/` and missing numbers of the one it belongs to."""
        other = self.sibling(case)
        return dataclasses.replace(
            self,
            json={**self.json, "config": {**other.config, **self.config}},
            arrays={**other.arrays, **self.arrays},
        )


def agree(a, b):
    """Whether two configs say the same where both say something."""
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def load(folder, case, arrays=True):
    """Reads `case.json` and, where there is one, `case.npz` unless not `arrays`."""
    folder = pathlib.Path(folder)
    wanted, arrays, npz = arrays, {}, folder / f"{case}.npz"
    if wanted and npz.exists():
        with np.load(npz) as file:
            arrays = {name: file[name] for name in file.files}
    text = (folder / f"{case}.json").read_text()
    return Golden(folder, case, json.loads(text), arrays)


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """|ours - theirs| <= relative |theirs| + absolute + largest * max |theirs|."""

    relative: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0

    def __str__(self):
        parts = (
            f"{value:.2g} {name}"
            for name, value in dataclasses.asdict(self).items()
            if value
        )
        return " + ".join(parts) or "exact"


TENSOR = Tolerance(relative=1e-5, absolute=1e-5)
LOSS = Tolerance(relative=2e-6)
GRADIENT = Tolerance(relative=1e-4, largest=1e-6)
SCHEDULE = Tolerance(relative=1e-7)
EXACT = Tolerance()


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity; errors are None where nothing was compared."""

    case: str
    quantity: str
    absolute: float | None
    relative: float | None  # the absolute error over the largest entry
    tolerance: str
    verdict: str


def compare(golden, values, tolerance, theirs=None):
    """Rows of `values` {name: ours} against `theirs`, the arrays of the same names.

    A name that the case doesn't have is left out.
    """
    theirs = golden.arrays if theirs is None else theirs
    return [
        compare_one(golden, name, ours, theirs[name], tolerance)
        for name, ours in values.items()
        if name in theirs
    ]


def compare_one(golden, name, ours, theirs, tolerance):
    """Row of two arrays; another shape or a NaN fails."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    absolute = relative = float("inf")
    verdict = FAIL
    if a.shape == b.shape and a.size:
        error, largest = np.abs(a - b), np.abs(b).max()
        limit = tolerance.relative * np.abs(b) + tolerance.absolute
        if np.all(error <= limit + tolerance.largest * largest):
            verdict = OK
        absolute = float(error.max())
        relative = absolute / float(largest) if largest else absolute
    return Row(golden.case, name, absolute, relative, str(tolerance), verdict)


def uncovered(golden, quantity):
    """Row of what isn't compared."""
    return Row(golden.case, quantity, None, None, "", UNCOVERED)


def broken(golden, error):
    """Row of a case that raised."""
    lines = str(error).strip().splitlines() or [""]
    text = f"raised {type(error).__name__}: {lines[0]}"
    return Row(golden.case, text, None, None, "", FAIL)


def format_rows(rows):
    """A table as text."""
    cells = [("case", "quantity", "abs", "rel", "tolerance", "verdict")]
    for r in rows:
        errors = ["" if e is None else f"{e:.1e}" for e in (r.absolute, r.relative)]
        cells.append((r.case, r.quantity, *errors, r.tolerance, r.verdict))
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in cells
    )


LAW = "law of two samples"


def summarise(rows):
    """A Markdown table: rows of one case and tolerance in one line.

    Rows of statistics have a tolerance of their own each, so they are only counted.
    """
    groups = {}
    for r in rows:
        drawn = "_stats" in r.case and r.tolerance.endswith("absolute")
        law = drawn and "relative" not in r.tolerance
        groups.setdefault((r.case, LAW if law else r.tolerance), []).append(r)
    lines = [
        "| case | rows | not ok | largest abs. error | relative | tolerance |",
        "|---|---|---|---|---|---|",
    ]
    for (case, tolerance), group in groups.items():
        bad = sum(r.verdict != OK for r in group)
        errors = " | "
        if tolerance != LAW:
            absolute = max(r.absolute or 0.0 for r in group)
            relative = max(r.relative or 0.0 for r in group)
            errors = f"{absolute:.1e} | {relative:.1e}"
        lines.append(f"| {case} | {len(group)} | {bad} | {errors} | {tolerance} |")
    return "\n".join(lines)
