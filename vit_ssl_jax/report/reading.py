"""What a report says of runs, read from their workdirs: plain values for JSON."""

import dataclasses
import datetime
import json
import math
import os

import numpy as np

from vit_ssl_jax import __version__
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.recipes import flatten
from vit_ssl_jax.report import curves, pictures, sections
from vit_ssl_jax.results import runs, table
from vit_ssl_jax.workdir.files import is_stored

CLASSES = 20  # names of classes that a data card shows


def collect(paths):
    """All that a page tells of the runs at or below `paths`: `(data, pictures)`, dicts.

    Runs that can't be read are left out with a note. Raises UserError where a path holds
    none, and where none is left.
    """
    folders = runs.find_folders(paths)
    names = name_folders(folders)
    found, measured, notes, panels = [], [], [], {}
    for folder in folders:
        try:
            mine, results = read_folder(folder, names[folder])
        except (UserError, OSError) as error:
            notes.append(f"{names[folder]} is left out: {error}")
            continue
        measured += results
        if mine:
            found.append(mine)
            panels[mine["name"]] = pictures.find(folder, mine["step"])
    if not (found or measured):
        raise UserError("; ".join(notes) or f"{folders[0]} holds nothing to report")
    thin_all(found, notes)
    group(found)
    data = {
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": found,
        "sections": sections.arrange({n for run in found for n in run["curves"]}),
        "evaluations": evaluations(measured),
        "notes": notes,
    }
    return data, show_pictures(panels)


def name_folders(folders):
    """`{folder: name}`: what of its path tells it from the others."""
    paths = {folder: os.fspath(folder) for folder in folders}
    if len(folders) == 1:
        return {f: os.path.basename(os.path.abspath(p)) for f, p in paths.items()}
    top = os.path.commonpath([os.path.abspath(p) for p in paths.values()])
    names = {f: os.path.relpath(os.path.abspath(p), top) for f, p in paths.items()}
    return {f: os.path.basename(top) if n == "." else n for f, n in names.items()}


def read_folder(folder, name):
    """A workdir as a dict (None: it has evaluations alone), and its `runs.Measured`."""
    if not (folder / "config.json").exists():
        return None, [finite(one) for one in runs.read_runs(folder)]
    config = runs.read_json(folder / "config.json")
    recipe = runs.recipe_of(config, folder / "config.json")
    numbers, newest, left_out = curves.read(folder / "metrics.jsonl")
    results = []
    try:
        results.extend(map(finite, runs.read_runs(folder)))
    except UserError as error:
        left_out.append(f"evaluations/*.json, for {error}")
    hours, estimated = curves.hours(numbers)
    axes = {"images": numbers.get("examples_seen"), "epochs": numbers.get("epoch")}
    axes |= {"hours": hours}
    file = folder / "metrics.jsonl"
    run = {
        "name": name,
        "recipe": recipe,
        "key": json.dumps(runs.trained(config), sort_keys=True, default=str),
        "step": newest,
        "steps": total_steps(config, axes["epochs"]),
        "written": None if is_stored(file) or not file.exists() else modified(file),
        "config": flatten(config),
        "versions": flatten(read_optional(folder / "versions.json", left_out)),
        "card": shorten_card(read_optional(folder / "data.json", left_out)),
        "summary": flatten(read_optional(folder / "summary.json", left_out)),
        "axes": {k: v for k, v in axes.items() if v is not None},
        "curves": numbers,
        "last": {k: curves.shorten(v[-1]) for k, (_, v) in numbers.items()},
        "notes": [f"left out: {note}" for note in left_out],
        "alarms": alarms(numbers),
    }
    if estimated:
        run["notes"].append(
            "hours are the sum of the seconds a step, without compilation and evaluation"
        )
    return run, results


def modified(file):
    """When a file was written, as seconds since 1970."""
    return os.stat(file).st_mtime


def finite(measured):
    """A `runs.Measured` without values that are no finite numbers."""
    values = {
        k: v
        for k, v in measured.values.items()
        if curves.is_number(v) and math.isfinite(v)
    }
    return dataclasses.replace(measured, values=values)


def read_optional(file, left_out):
    """A JSON object; {} where there is none, with a note where it is damaged."""
    if not file.exists():
        return {}
    try:
        found = runs.read_json(file)
    except UserError:
        found = None
    if isinstance(found, dict):
        return found
    left_out.append(f"{file.name}, which can't be read")
    return {}


def total_steps(config, epochs):
    """The steps of the whole run as far as its files tell, else None."""
    steps, wanted = config.get("steps"), config.get("epochs")
    if steps and curves.is_number(steps):
        return steps
    if epochs is None or not epochs[1][-1] > 0 or not curves.is_number(wanted):
        return None
    return round(wanted * epochs[0][-1] / epochs[1][-1])


def shorten_card(card):
    """A data card, of many classes the first names, dicts inside as dotted keys."""
    classes = card.get("classes")
    if isinstance(classes, list) and len(classes) > CLASSES:
        card["classes"] = [*classes[:CLASSES], f"... {len(classes):,} in all"]
    return flatten(card)


def alarms(numbers):
    """The steps at which an alarm of collapse began: `ssl/alarm` rises."""
    if "ssl/alarm" not in numbers:
        return []
    steps, values = numbers["ssl/alarm"]
    return steps[np.diff(values > 0, prepend=False) & (values > 0)].tolist()


def thin_all(found, notes):
    """Thins the curves of all runs in place, and notes how many were."""
    count = sum(len(run["curves"]) for run in found)
    most, thinned, longest = curves.points(count), 0, 0
    for run in found:
        for name, (steps, values) in run["curves"].items():
            run["curves"][name] = curves.thin(steps, values, most)
            thinned += len(steps) > most
            longest = max(longest, len(steps))
        for name, axis in run["axes"].items():
            run["axes"][name] = curves.sample(*axis, most)
    if thinned:
        notes.append(
            f"{thinned} of {count} curves, the longest of {longest:,} points, are drawn by "
            f"{most:,} parts each: the line is the mean of a part, the band its least and "
            "greatest value. metrics.jsonl has every point."
        )


def group(found):
    """Numbers the runs by which are repetitions of each other, in place."""
    keys = list(dict.fromkeys((run["recipe"], run["key"]) for run in found))
    for run in found:
        run["group"] = keys.index((run["recipe"], run.pop("key")))


def evaluations(measured):
    """The rows of `results` for all metrics, the headlines marked."""
    rows = table.tabulate(measured, ".")
    for row in rows:
        row["headline"] = table.is_wanted(row["metric"], "")
        row["values"] = [curves.shorten(value) for value in row["values"]]
        row["result"] = table.show(row.pop("mean"), row.pop("std"))
        row["published"] = table.show(row["published"], row.pop("published_std"))
    return rows


def show_pictures(panels):
    """The pictures of all runs: `{"runs": {run: {name: [{step, src}]}}, "notes"}`."""
    having = {run: panel for run, panel in panels.items() if panel}
    out, notes = {}, []
    for run, panel in having.items():
        shown, left_out = pictures.read(panel, pictures.ALL // len(having))
        notes += [f"{run}: left out: {note}" for note in left_out]
        if shown:
            out[run] = shown
    return {"runs": out, "notes": notes}
