"""The class of each image of a folder: of its class folder, or of a file of labels."""

import collections
import difflib
import os
import pathlib

from vit_ssl_jax.data import label_files
from vit_ssl_jax.data.layout import Layout, Split
from vit_ssl_jax.errors import UserError

EXTRA_CLASSES = ("error", "skip", "keep")
SHOWN = 8  # names in a message


def classify(
    splits: Layout, name: str, named: dict[tuple[str, str], str], extra: str
) -> tuple[dict[str, str], tuple[str, ...], list[str]]:
    """Classes of a split's images: `({path: class}, all class names, lines to say)`.

    `named` is what `read_named` gives. Classes are those of all splits. Paths that are
    missing are left out, and without class names every class is "".

    extra: what to do about a class that train doesn't have, where it has any: "error",
        "skip" leaves its images out, "keep" makes it a class.
    """
    if extra not in EXTRA_CLASSES:
        raise UserError(
            f"config.data.extra_classes: {extra!r} is none of {', '.join(EXTRA_CLASSES)}"
        )
    split, found, lines = splits.splits[name], {}, {}
    for other, its in splits.splits.items():
        found[other], lines[other] = _of_split(other, its, named)
    everything = dict.fromkeys(split.paths, ""), ()
    if not found[name]:
        return *everything, lines[name]
    train = {c for n in splits.means("train") for c in found[n].values()}
    if train:
        for other in found:
            said = _check_extra(found, other, train, extra, splits)
            if other == name:
                lines[name] += said
    names = {c for classes in found.values() for c in classes.values()}
    numbers = all(c.isdecimal() for c in names)
    names = sorted(names, key=(lambda c: (int(c), c)) if numbers else None)
    if len(names) < 2:
        only = f"{split.root} has one class, {names[0]}, which tells nothing apart"
        return *everything, [f"labels are off: {only}"]
    return found[name], tuple(names), lines[name]


def _of_split(name: str, split: Split, named) -> tuple[dict[str, str], list[str]]:
    """`({path: class}, lines)`; {} where most images have none, the lines say why."""
    classes = {p: named[name, p] for p in split.paths if (name, p) in named}
    where = "aren't named in config.data.labels_file"
    if not classes:
        classes = {p: p.split(os.sep)[0] for p in split.paths if os.sep in p}
        where = "lie in no class folder"
    without = [path for path in split.paths if path not in classes]
    if not without:
        return classes, _describe_deeper(classes, split) if not named else []
    example = split.root / without[0]
    if len(without) > len(classes):
        why = f"{len(without):,} of {len(split.paths):,} images {where}, such as {example}"
        return {}, [f"labels are off: {why}"]
    return classes, [
        f"left out: {len(without):,} images that {where}, such as {example}"
    ]


def _describe_deeper(classes: dict[str, str], split: Split) -> list[str]:
    """A line where class folders have folders of their own."""
    deeper = {c for path, c in classes.items() if path.count(os.sep) > 1}
    if not deeper:
        return []
    shown = ", ".join(sorted(deeper)[:SHOWN])
    return [
        f"classes are the first folders in {split.root}; below them lie more: {shown}"
    ]


def _check_extra(found, name, train, extra, splits) -> list[str]:
    """Deals with classes of a split that train doesn't have; returns lines to say."""
    counts = collections.Counter(c for c in found[name].values() if c not in train)
    if not counts or extra == "keep":
        return []
    shown = ", ".join(f"{c} ({n} images)" for c, n in sorted(counts.items())[:SHOWN])
    root = splits.splits[name].root
    if extra == "skip":
        found[name] = {p: c for p, c in found[name].items() if c in train}
        return [f"left out: classes of {root} that train doesn't have: {shown}"]
    cases = {c.lower(): c for c in train}
    close = [
        f"{c!r} is {cases[c.lower()]!r} there" for c in counts if c.lower() in cases
    ] or [
        f"did you mean {near[0]!r} by {c!r}?"
        for c in counts
        if (near := difflib.get_close_matches(c, train, n=1, cutoff=0.8))
    ]
    hint = f" ({close[0]})" if close else ""
    raise UserError(
        f"{root} has classes that train doesn't have: {shown}{hint}. Rename or move "
        "them, or set --config.data.extra_classes=skip to leave their images out, or "
        "=keep to number them as well; --config.data.labels=False ignores all classes."
    )


def read_named(path: str, splits: Layout) -> dict[tuple[str, str], str]:
    """`{(split, path in it): class}` of the images that a file of labels names.

    It is one of `label_files.read_labels`. Its names are paths, or any end of one (from
    the directory on, from the split's folder, a file's own), with or without the
    suffix; a name that fits several images raises UserError, as do names of none.
    """
    told = label_files.read_labels(path)
    if isinstance(told, list):
        return _in_order(told, path, splits)
    found, images_of = {}, collections.defaultdict(list)
    for name, split in splits.splits.items():
        for image in split.paths:
            names = _names_of(split.root / image)
            keys = (key for key in names if key in told)
            if (key := next(keys, None)) is not None:
                found[name, image] = told[key]
                images_of[key].append(split.root / image)
    if not found:
        raise UserError(
            f"config.data.labels_file: none of the {len(told):,} names in {path}, such "
            f"as {next(iter(told))!r}, is an image of the folder; give paths relative to "
            "it"
        )
    for key, images in images_of.items():
        if len(images) > 1:
            raise UserError(
                f"config.data.labels_file: {key!r} in {path} fits {len(images)} images, "
                f"{images[0]} and {images[1]}; give paths relative to the folder"
            )
    return found


def _names_of(image: pathlib.Path) -> list[str]:
    """What a file of labels may call an image: its path, or any end of it."""
    whole = image.absolute().as_posix()
    parts = whole.split("/")
    ends = [whole, *("/".join(parts[i:]) for i in range(1, len(parts)))]
    return [*ends, *(os.path.splitext(end)[0] for end in ends)]


def _in_order(told: list[str], path: str, splits: Layout) -> dict[tuple[str, str], str]:
    """The labels of the one split that has as many images as there are lines."""
    counts = {name: len(split.paths) for name, split in splits.splits.items()}
    fitting = [name for name, count in counts.items() if count == len(told)]
    if len(fitting) != 1:
        there = ", ".join(
            f"{name or 'all'}: {count:,}" for name, count in counts.items()
        )
        raise UserError(
            f"config.data.labels_file: {path} has {len(told):,} lines, one for each "
            f"image in the order of names, but the images are {there}"
        )
    (name,) = fitting
    pairs = zip(sorted(splits.splits[name].paths), told, strict=True)
    return {(name, image): label for image, label in pairs}
