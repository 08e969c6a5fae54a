"""Finds the images below a directory: with class folders, split folders, or flat.

DIR/SPLIT/CLASS/*.jpg, DIR/CLASS/*.jpg, DIR/SPLIT/**/*.jpg or DIR/**/*.jpg.
"""

import dataclasses
import os
import pathlib

import numpy as np

from vit_ssl_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SPLITS = ("train", "val", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Images:
    """Image files: `paths` relative to `root`, one label each (-1 without classes)."""

    root: pathlib.Path
    paths: list[str]
    labels: list[int]
    class_names: tuple[str, ...]


def find_images(directory: str, split: str, *, labels: bool) -> Images:
    """Lists the images of a split, in an order that is shuffled but always the same.

    Shuffled, so that a slice has all classes. Classes are sub-folders, if there are
    two or more and every image lies directly in one; with split folders they are
    numbered over all of them, so that a class keeps its label where another is absent.
    Names that begin with a dot are skipped. Raises UserError without images.
    """
    top = _check_directory(directory)
    root = _split_folder(top, split)
    paths = sorted(_walk(root))
    if not paths:
        raise UserError(
            f"no images in {root}: it holds no file that ends with "
            f"{', '.join(EXTENSIONS)}, at any depth."
        )
    classes = _classes(top, root, paths) if labels else []
    numbers = {name: i for i, name in enumerate(classes)}
    order = np.random.default_rng(0).permutation(len(paths))
    paths = [paths[i] for i in order]
    path_labels = [numbers.get(os.path.dirname(path), -1) for path in paths]
    return Images(root, paths, path_labels, tuple(classes))


def _check_directory(directory: str) -> pathlib.Path:
    if not directory:
        raise UserError(
            "data from a folder needs a directory, but it is ''. "
            "Give the path of a folder of images."
        )
    top = pathlib.Path(directory).expanduser()
    if not top.exists():
        raise UserError(f"image folder {directory!r} doesn't exist ({top.absolute()}).")
    if not top.is_dir():
        raise UserError(f"image folder {directory!r} is a file; give a folder.")
    return top


def _split_folder(top: pathlib.Path, split: str) -> pathlib.Path:
    """The folder that holds a split; `top` itself is "train" without split folders."""
    other = {"val": "validation", "validation": "val"}.get(split, split)
    for name in (split, other):
        if (top / name).is_dir():
            return top / name
    found = _splits(top)
    if found:
        raise UserError(
            f"image folder {top} has no split {split!r}: "
            f"its split folders are {', '.join(found)}."
        )
    if split != "train":
        raise UserError(
            f"image folder {top} has no split {split!r}: without split folders "
            f"({', '.join(SPLITS)}) all of it is split 'train'. Put images into "
            f"{top / split}, or take slices such as train[:90%] and train[90%:]."
        )
    return top


def _splits(top: pathlib.Path) -> list[str]:
    return [name for name in SPLITS if (top / name).is_dir()]


def _walk(root: pathlib.Path) -> list[str]:
    """Paths of all images below `root`, relative to it; follows links to folders."""
    paths = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(folder, root)
        paths += [
            os.path.normpath(os.path.join(inside, name))
            for name in files
            if _is_image(name)
        ]
    return paths


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _classes(top: pathlib.Path, root: pathlib.Path, paths: list[str]) -> list[str]:
    """Sorted names of the class folders; none if the images aren't laid out so."""
    if any(path.count(os.sep) != 1 for path in paths):
        return []
    names = {os.path.dirname(path) for path in paths}
    if root != top:
        for split in _splits(top):
            names.update(_folders_with_images(top / split))
    return sorted(names) if len(names) > 1 else []


def _folders_with_images(root: pathlib.Path) -> list[str]:
    """Names of the direct sub-folders that directly hold an image."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return [
        name
        for name in names
        if not name.startswith(".") and any(map(_is_image, os.listdir(root / name)))
    ]
