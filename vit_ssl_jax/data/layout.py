"""Tells which images of a directory belong to which split, by its folders' names."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable

from vit_ssl_jax.errors import UserError

NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
MEANING = {name: split for split, names in NAMES.items() for name in names}
# "train2017", "Test Set", "val_images".
DECORATED = re.compile(
    rf"({'|'.join(sorted(MEANING, key=len, reverse=True))})"
    r"[ _.-]?(set|split|images?|imgs?|pics?|photos?|data|\d{1,4})?"
)


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of a split: their paths relative to `root`, and what they stand for.

    means: "train", "validation", "test", or "" for a folder of another name.
    """

    root: pathlib.Path
    paths: list[str]
    means: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Splits of a directory by folder name; {"": all} where no folder is a split's.

    others: folders beside the splits that hold images, by name.
    notes: what was guessed or left out.
    """

    splits: dict[str, Split]
    others: dict[str, Split]
    notes: tuple[str, ...]

    def means(self, meaning: str) -> list[str]:
        """Names of the splits that stand for `meaning`."""
        return [name for name, split in self.splits.items() if split.means == meaning]


def meaning_of(name: str) -> str:
    """The split that a folder of this name is, whatever its case: "train", or "" """
    found = DECORATED.fullmatch(name.strip().lower())
    return MEANING[found[1]] if found else ""


def arrange(top: pathlib.Path, paths: list[str]) -> Layout:
    """Sorts images by split; `paths` are relative to `top`.

    Splits are the folders of `top`, or of the one folder below it that has some
    ("DATASET/train/...", as archives unpack). Where they lie further below
    ("CLASS/train/...") images are told apart by the first folder of a split's name.
    """
    above = _wrapper(paths)
    root, notes = top / above, []
    start = f"{above}{os.sep}" if above else ""
    inside = [path.removeprefix(start) for path in paths if path.startswith(start)]
    beside = [path for path in paths if not path.startswith(start)]
    folders: dict[str, list[str]] = {}
    for path in inside:
        first, slash, rest = path.partition(os.sep)
        folders.setdefault(first if slash else "", []).append(rest or path)
    meanings = _meanings([name for name in folders if name])
    if _is_class(meanings, folders):
        notes.append(
            f"{root / 'train'} is taken for a class, as the folders beside it; were it "
            "a split, it would need a folder of its own"
        )
        meanings = {}
    if not meanings:
        return _arrange_below(top, paths, notes)
    splits = {
        name: Split(root / name, folders[name], meaning)
        for name, meaning in meanings.items()
    }
    others = {
        name: Split(root / name, found, "")
        for name, found in folders.items()
        if name and name not in meanings
    }
    beside = [top / path for path in beside]
    beside += [root / p for p in inside if p.partition(os.sep)[0] not in meanings]
    if beside:
        notes.append(
            f"{len(beside):,} images beside the split folders "
            f"({', '.join(meanings)}) are left out, such as {beside[0]}"
        )
    return Layout(splits, others, tuple(notes))


def _wrapper(paths: list[str]) -> str:
    """The one folder that has the splits in it; "" where that is `top`, or none."""
    split = [path.split(os.sep)[:-1] for path in paths]
    above: list[str] = []
    while True:
        depth = len(above)
        below = {tuple(p[depth : depth + 2]) for p in split if p[:depth] == above}
        folders = {p[0] for p in below if p}
        if not folders or _meanings(folders):
            return os.sep.join(above) if folders else ""
        inside = {
            name: _meanings({p[1] for p in below if p[0:1] == (name,) and len(p) > 1})
            for name in folders
        }
        # Among several folders it takes more than one called train.
        wanted = 1 if len(folders) == 1 else 2
        holders = [n for n, m in inside.items() if len(set(m.values())) >= wanted]
        if len(holders) == 1:
            return os.sep.join([*above, *holders])
        if len(folders) > 1:
            return ""
        above += folders


def _meanings(folders: Iterable[str]) -> dict[str, str]:
    """Folders that are splits, and what they mean; "seg_train", "seg_test" are, too."""
    folders = sorted(folders)
    found = {name: meaning_of(name) for name in folders}
    if not any(found.values()):
        common = re.sub(r"[^ _.-]*$", "", os.path.commonprefix(folders))
        cut = {name: meaning_of(name.removeprefix(common)) for name in folders}
        if len(set(filter(None, cut.values()))) > 1:
            found = cut
    return {name: meaning for name, meaning in found.items() if meaning}


def _is_class(meanings: dict[str, str], folders: dict[str, list[str]]) -> bool:
    """Whether the one folder called train is a class: trains among cars and ships."""
    if set(meanings.values()) != {"train"} or len(meanings) > 1:
        return False
    (name,) = meanings
    flat = not any(os.sep in path for path in folders[name])
    return flat and "" not in folders and len(folders) > 2


def _arrange_below(top: pathlib.Path, paths: list[str], notes: list[str]) -> Layout:
    """The layout without split folders at the top."""
    found: dict[str, list[str]] = {"train": []}
    example = ""
    for path in paths:
        names = path.split(os.sep)[:-1]
        meanings = [meaning_of(name) for name in names[1:]]
        meaning = next(filter(None, meanings), "")
        found.setdefault(meaning or "train", []).append(path)
        if meaning in ("validation", "test") and not example:
            example = path
    if not example:
        return Layout({"": Split(top, paths, "train")}, {}, tuple(notes))
    notes.append(
        f"splits are told by the first folder of such a name in a path, as in "
        f"{top / example}; images outside such folders are training images"
    )
    splits = {name: Split(top, p, name) for name, p in found.items() if p}
    return Layout(splits, {}, tuple(notes))


def choose(layout: Layout, top: pathlib.Path, split: str) -> tuple[str, str]:
    """Name of the split that is asked for, and a note ("") where it stands in.

    By the folder's own name, else by what it means; "validation" falls back to a test
    split. Raises UserError where there is none, or several.
    """
    if split in layout.splits and split:
        return split, ""
    wanted, names = meaning_of(split), list(layout.splits)
    fitting = layout.means(wanted) if wanted else []
    if len(fitting) > 1:
        raise UserError(
            f"image folder {top} has several folders for split {split!r}: "
            f"{', '.join(fitting)}. Name one of them instead."
        )
    if fitting:
        return fitting[0], ""
    if wanted == "validation" and len(layout.means("test")) == 1:
        (name,) = layout.means("test")
        return name, f"split {split!r} is {layout.splits[name].root}: there is no other"
    if names != [""]:
        raise UserError(
            f"image folder {top} has no split {split!r}: "
            f"its split folders are {', '.join(names)}."
        )
    raise UserError(
        f"image folder {top} has no split {split!r}: without split folders "
        f"(train, val, validation, test) all of it is split 'train'. Put images into "
        f"{top / split}, or take slices such as train[:90%] and train[90%:]."
    )
