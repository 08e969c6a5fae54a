"""Finds the images below a directory, and their classes: by folders, or by a file.

DIR/SPLIT/CLASS/*.jpg, DIR/CLASS/*.jpg, DIR/SPLIT/**/*.jpg or DIR/**/*.jpg.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib

import numpy as np
from etils import epath

from vit_ssl_jax.data import classes, layout, stores, walk
from vit_ssl_jax.data.layout import Layout
from vit_ssl_jax.errors import UserError

HELD_OUT = 10  # one image in so many


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files: `paths` relative to `root`, one label each (-1 without classes).

    notes: what was guessed, left out or taken instead, a line each.
    """

    root: pathlib.Path
    paths: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_images(
    directory: str,
    split: str,
    *,
    labels: bool,
    labels_file: str = "",
    extra_classes: str = "error",
    hold_out: bool = False,
) -> Images:
    """Lists the images of a split, in an order that is shuffled but always the same.

    Shuffled, so that a slice has all classes. Which folders are splits: see
    `layout.arrange`. The class of an image is the first folder below its split, if
    there are two or more. They are numbered over all splits, so that a class keeps its
    label where another is absent. Images beside the class folders are left out; where
    they are the most, there are no classes.

    labels_file: see `classes.read_named`; comes before class folders.
    extra_classes: that train doesn't have: see `classes.classify`.
    hold_out: without a validation and a test split, a tenth of the images by the hash
        of their paths is both, and not in "train".

    Raises UserError without images, and for what can't be told apart.
    """
    top = check_directory(directory)
    files = find_files(top)
    splits = layout.arrange(top, files.images)
    splits = dataclasses.replace(splits, notes=(*splits.notes, *_describe_rest(files)))
    if hold_out:
        splits = hold_out_some(splits, top)
    named = classes.read_named(labels_file, splits) if labels and labels_file else {}
    return choose_images(top, splits, split, labels, named, extra_classes)


def choose_images(
    top: pathlib.Path,
    splits: Layout,
    split: str,
    labels: bool,
    named: dict[tuple[str, str], str],
    extra_classes: str,
) -> Images:
    """The images of a split of a layout: as `find_images`, named as `read_named` does."""
    notes = [*splits.notes]
    if split in splits.others:  # by its own name
        chosen = {**splits.splits, split: splits.others[split]}
        splits = dataclasses.replace(splits, splits=chosen)
    name, note = layout.choose(splits, top, split)
    chosen = splits.splits[name]
    class_of, class_names = dict.fromkeys(chosen.paths, ""), ()
    if labels:
        class_of, class_names, lines = classes.classify(
            splits, name, named, extra_classes
        )
        notes += lines
    paths = sorted(class_of)
    order = np.random.default_rng(0).permutation(len(paths))
    paths = [paths[i] for i in order]
    numbers = {text: i for i, text in enumerate(class_names)}
    path_labels = [numbers.get(class_of[path], -1) for path in paths]
    notes = tuple(filter(None, [note, *notes]))
    return Images(chosen.root, paths, path_labels, class_names, notes)


def list_files(directory: str) -> tuple[pathlib.Path, list[str], list[str]]:
    """All images below a directory, whatever their split: (it, paths, lines to say).

    Paths are relative to it and sorted. Raises UserError without images.
    """
    top = check_directory(directory)
    files = find_files(top)
    return top, files.images, _describe_rest(files)


def check_directory(directory: str) -> pathlib.Path:
    """The folder of images; raises UserError where it is none."""
    if not directory:
        raise UserError(
            "data from a folder needs a directory, but it is ''. "
            "Give the path of a folder of images: --config.data.dir=DIR"
        )
    if stores.is_stored(directory):
        return epath.Path(directory)
    top = pathlib.Path(directory).expanduser()
    if not top.exists():
        raise UserError(f"image folder {directory!r} doesn't exist ({top.absolute()}).")
    if not top.is_dir():
        raise UserError(f"image folder {directory!r} is a file; give a folder.")
    return top


def find_files(top: pathlib.Path) -> walk.Files:
    """The files below `top`; a split may be a link to another. UserError for none."""

    def is_split(path: str) -> bool:
        return bool(layout.meaning_of(os.path.basename(path)))

    if stores.is_stored(top):
        files = stores.find_files(top)
    else:
        files = walk.find_files(top, is_split)
    if not files.images:
        others = walk.describe_others(files.others)
        raise UserError(
            f"no images in {top}: it holds no file that ends with "
            f"{', '.join(sorted(walk.SUFFIXES))}, or begins as one, at any depth"
            + (f"; there are {others}." if others else ".")
        )
    return files


def _describe_rest(files: walk.Files) -> list[str]:
    """Lines on the files that are no images, and on links that weren't followed."""
    lines = []
    if others := walk.describe_others(files.others):
        lines.append(f"no images: {others}")
    if files.links:
        lines.append(
            f"{len(files.links)} links to folders whose images are found without them "
            f"are not followed, such as {files.links[0]}"
        )
    return lines


def hold_out_some(splits: Layout, top: pathlib.Path) -> Layout:
    """The layout with a tenth of the training images as "test", and a note about it.

    As it is where it has a test or validation split.
    """
    name, *more = splits.means("train") or [""]
    if more or splits.means("validation") + splits.means("test"):
        return splits  # of several for training `choose` says so
    whole = splits.splits[name]
    by_hash = sorted(whole.paths, key=_hash)
    tenth = [path for path in by_hash if _hash(path) * HELD_OUT < 1] or by_hash[:1]
    # A class is never held out whole.
    kept = collections.Counter(path.partition(os.sep)[0] for path in whole.paths)
    held = []
    for path in tenth:
        folder = path.partition(os.sep)[0]
        if kept[folder] > 1 or folder == path:
            kept[folder] -= 1
            held.append(path)
    rest = sorted(set(whole.paths) - set(held))
    if not held or not rest:
        raise UserError(
            f"image folder {top} has {len(whole.paths)} images and no test split: too "
            "few to hold out some; add images, or a folder called test"
        )
    made = {
        "train": dataclasses.replace(whole, paths=rest),
        "test": dataclasses.replace(whole, paths=sorted(held), means="test"),
    }
    note = (
        f"no test split in {top}: {len(held):,} of its {len(whole.paths):,} images, told "
        "by the hash of their paths, are held out and are 'test' and 'validation'"
    )
    return Layout(made, splits.others, (*splits.notes, note))


def _hash(path: str) -> float:
    """A number in [0, 1) that is the path's own, on any system."""
    name = path.replace(os.sep, "/").encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") / 2**48
