"""Labels of image files from a file: a table, JSON, or a line for each image in order."""

import csv
import json
import os
import pathlib

from vit_ssl_jax.errors import UserError

FILES = ("file", "filename", "file_name", "path", "image", "image_id", "imageid", "id")
LABELS = ("label", "class", "class_name", "category", "target", "wnid", "breed")
LABELS += ("predictionstring",)
META = ("meta.mat", "data/meta.mat", "../meta.mat")  # ImageNet's development kit


def read_labels(path: str | os.PathLike) -> dict[str, str] | list[str]:
    """Reads `{file: class}`, or the classes of all files in the order of their names.

    Which it is, its suffix says: .csv or .tsv (columns "file" and "label", or the first
    two), .json ({file: label}, or a list of pairs or of {"file", "label"}, alone or
    under "labels"), .txt (a label a line; ImageNet's ground truth, whose numbers the
    development kit's meta.mat, beside it, makes names). Raises UserError for any other.
    """
    file = pathlib.Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.data.labels_file: {file} can't be read ({error})"
        ) from (None)
    readers = {".csv": _table, ".tsv": _table, ".json": _json, ".txt": _lines}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UserError(
            f"config.data.labels_file: {file} isn't one of {', '.join(readers)}; give a "
            "CSV file with the columns file and label"
        )
    labels = reader(text, file)
    if not labels:
        raise UserError(f"config.data.labels_file: {file} has no label in it")
    return labels


def _table(text: str, file: pathlib.Path) -> dict[str, str]:
    rows = [row for row in csv.reader(text.splitlines(), delimiter=_comma(text)) if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    if len(head) < 2:
        raise UserError(
            f"config.data.labels_file: {file} begins with {', '.join(head)!r}; give it "
            "the columns file and label"
        )
    at = _column(head, FILES), _column(head, LABELS)
    if None in at:
        at = 0, 1  # if these have other names, the first row matches no image
    else:
        rows = rows[1:]
    # A localisation's "n01440764 13 112 377 296" is its first word.
    first = head[at[1]] == "predictionstring"
    pairs = []
    for number, row in enumerate(rows, 1):
        if len(row) <= max(at):
            raise UserError(
                f"config.data.labels_file: row {number} of {file} has {len(row)} cells: "
                f"{','.join(row)!r}"
            )
        label = row[at[1]].strip()
        pairs.append((row[at[0]].strip(), label.split()[0] if first else label))
    return _unique(pairs, file)


def _comma(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",\t;", key=first.count)


def _column(head: list[str], names: tuple[str, ...]) -> int | None:
    return next((head.index(name) for name in names if name in head), None)


def _json(text: str, file: pathlib.Path) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"config.data.labels_file: {file} is no JSON ({error})"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("labels"), dict | list):
        content = content["labels"]
    if isinstance(content, dict):
        pairs = list(content.items())
    else:
        pairs = [_pair(item, file) for item in content]
    for name, label in pairs:
        if isinstance(label, dict | list | float | bool) or label is None:
            raise UserError(
                f"config.data.labels_file: {name!r} has the label {label!r} in {file}; "
                "give a name or a number of a class"
            )
    return _unique([(str(name), str(label)) for name, label in pairs], file)


def _pair(item, file: pathlib.Path) -> tuple:
    if isinstance(item, list) and len(item) == 2:
        return tuple(item)
    if isinstance(item, dict):
        keys = {key.lower(): key for key in item}
        name, label = (
            next((keys[k] for k in names if k in keys), None)
            for names in (FILES, LABELS)
        )
        if name and label:
            return item[name], item[label]
    raise UserError(
        f'config.data.labels_file: {file} holds {item!r}; give {{"file": ..., "label": '
        "...}"
    )


def _unique(pairs: list[tuple[str, str]], file: pathlib.Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name, label in pairs:
        name = os.path.normpath(name.replace("\\", "/"))
        if labels.setdefault(name, label) != label:
            raise UserError(
                f"config.data.labels_file: {name!r} has the labels {labels[name]!r} and "
                f"{label!r} in {file}; an image has one class"
            )
    return {name: label for name, label in labels.items() if label}


def _lines(text: str, file: pathlib.Path) -> list[str] | dict[str, str]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if all(len(line) == 2 for line in lines):  # "file label"
        return _unique([(name, label) for name, label in lines], file)
    if any(len(line) != 1 for line in lines):
        raise UserError(
            f"config.data.labels_file: {file} has lines of several words; give a label a "
            "line, or a CSV file with the columns file and label"
        )
    labels = [line[0] for line in lines]
    meta = next((m for m in (file.parent / name for name in META) if m.exists()), None)
    if meta is None or not all(label.isdecimal() for label in labels):
        if "ILSVRC" in file.name and labels[0].isdecimal():
            raise UserError(
                f"config.data.labels_file: the numbers in {file} aren't those of the "
                "class folders; copy meta.mat of ImageNet's development kit beside it"
            )
        return labels
    names = _imagenet_names(meta)
    return [names[int(label)] for label in labels]


def _imagenet_names(meta: pathlib.Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WordNet id, by the development kit's table."""
    import scipy.io  # here because only this file needs it

    synsets = scipy.io.loadmat(str(meta), squeeze_me=True)["synsets"]
    return {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
