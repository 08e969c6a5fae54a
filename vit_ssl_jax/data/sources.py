"""Sources of images: `open_source` opens a split of a data set by its name."""

import dataclasses
import functools
import os
from collections.abc import Mapping

import numpy as np

from vit_ssl_jax.data import (
    decoding,
    embedded,
    folder,
    huggingface,
    listing,
    prepared,
    stores,
    tars,
)
from vit_ssl_jax.data.source import Source, cut, without_labels
from vit_ssl_jax.errors import UserError

FILES = "folder", "tars"
LARGEST_FILE = 2**30  # bytes; 179 million pixels of 16 bits are no more
FAKE_LENGTH, FAKE_CLASSES, FAKE_SIZE = 1024, 10, 32


def open_source(
    name: str,
    directory: str,
    split: str,
    *,
    labels: bool = True,
    label: str = "",
    alpha: str = "white",
    lists: Mapping[str, str] | None = None,
    **of_folder,
) -> Source:
    """Opens a split of a data set; reads no image yet.

    name: "embedded" (texture patches of scikit-image), "folder" (images below
        `directory`), "tars" (in archives there), "huggingface" (see `huggingface`), "fake"
        (coloured noise), or a set prepared there, "NAME[/CONFIG[/VERSION]]".
    directory: "" is ~/tensorflow_datasets for TFDS; unused by "embedded" and "fake".
    split: names that the set knows, with or without a slice, put together by "+".
    labels: False ignores labels and class folders: every label is -1.
    label: of a TFDS set, a feature's name or a rule (see `labels.find_label`); "": its
        first class.
    alpha: what lies behind transparent images, "white" or "black".
    lists: files of names by split: of those splits only the images that they name are
        there, see `listing.keep_listed`.
    of_folder: labels_file, extra_classes, hold_out of `folder.find_images`; a labels
        file is refused for any other set.

    Raises UserError when the set, the split, its slice or the label doesn't exist.
    """
    _check_told(name, label, alpha, of_folder.get("labels_file", ""))

    @functools.cache
    def open_whole(split_name: str) -> Source:
        if name in FILES:
            opener = _open_folder if name == "folder" else tars.open_archives
            source = opener(directory, split_name, labels=labels, **of_folder)
        else:
            source = _open_whole(name, directory, split_name, label if labels else "")
        if path := (lists or {}).get(split_name):
            source = listing.keep_listed(source, path)
        source = dataclasses.replace(source, alpha=alpha, names=None)
        return source if labels else without_labels(source)

    return cut(split, open_whole)


def _check_told(name: str, label: str, alpha: str, labels_file: str) -> None:
    """Raises UserError for what can't be told of this set."""
    if label and name in ("embedded", "fake", *FILES):
        raise UserError(
            f"config.data.label: {label!r} chooses among the labels of a prepared set, "
            f"but {name} has one at most; set label=''"
        )
    if alpha not in decoding.ALPHA:
        raise UserError(f"config.data.alpha: {alpha!r} is neither white nor black")
    if labels_file and name not in FILES:
        raise UserError(
            f"config.data.labels_file: {name} has labels of its own; it is for images in "
            "a folder (config.data.name='folder')"
        )


def _open_whole(name: str, directory: str, split: str, label: str) -> Source:
    """A split without a slice, of no folder; it may have labels that aren't wanted."""
    if name == "embedded":
        return _open_embedded(split)
    if name == "fake":
        return _open_fake(split)
    if name == "huggingface":
        return huggingface.open_saved(directory, split, label)
    return _open_prepared(name, directory, split, label)


def _check_split(name: str, split: str) -> None:
    if split not in ("train", "test"):
        raise UserError(f"{name} has no split {split!r}: choose train or test.")


def _open_embedded(split: str) -> Source:
    _check_split("embedded", split)
    images, labels = embedded.make_patches(split)
    return Source(
        name=f"embedded {split!r}",
        length=len(images),
        read=lambda i: (images[i], int(labels[i])),
        where=lambda i: f"patch {i} of embedded {split!r}",
        class_names=embedded.PHOTOS,
    )


def _open_fake(split: str) -> Source:
    """Noise around one colour per class, made when it is read."""
    _check_split("fake", split)
    colours = np.random.default_rng(0).integers(64, 192, (FAKE_CLASSES, 1, 1, 3))

    def read(i: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng((split == "test", i))
        label = i % FAKE_CLASSES
        noise = rng.integers(-64, 64, (FAKE_SIZE, FAKE_SIZE, 3))
        return (colours[label] + noise).astype(np.uint8), label

    return Source(
        name=f"fake {split!r}",
        length=FAKE_LENGTH,
        read=read,
        where=lambda i: f"image {i} of fake {split!r}",
        class_names=tuple(f"colour {label}" for label in range(FAKE_CLASSES)),
        portable=True,
    )


def _open_folder(directory: str, split: str, **reading) -> Source:
    images = folder.find_images(directory, split, **reading)

    stored = stores.is_stored(images.root)

    def read(i: int) -> tuple[bytes, int]:
        return read_file(images.root / images.paths[i], stored), images.labels[i]

    return Source(
        name=f"folder {images.root}",
        length=len(images.paths),
        read=read,
        where=lambda i: str(images.root / images.paths[i]),
        class_names=images.class_names,
        notes=images.notes,
        files=not stored,
        portable=True,
        names=lambda: [str(path) for path in images.paths],
    )


def _open_prepared(name: str, directory: str, split: str, label: str) -> Source:
    records = prepared.open_records(name, directory, split, label)
    return Source(
        name=f"{name} {split!r} in {records.folder}",
        length=records.length,
        read=records.read,
        where=lambda i: f"record {i} of {name} {split!r} in {records.folder}",
        class_names=records.label.class_names,
        no_label=records.label.none,
        portable=True,
        names=records.names,
    )


def open_files(directory: str, alpha: str = "white") -> tuple[Source, list[str]]:
    """All images below a directory in the order of their paths, and lines to say.

    Without labels, whatever split or class a folder's name means. Raises UserError
    where there are none.
    """
    top, paths, lines = folder.list_files(directory)
    stored = stores.is_stored(top)
    source = Source(
        name=f"folder {top}",
        length=len(paths),
        read=lambda i: (read_file(top / paths[i], stored), -1),
        where=lambda i: str(top / paths[i]),
        alpha=alpha,
        files=not stored,
        portable=True,
    )
    return source, lines


def read_file(path, stored: bool) -> bytes:
    """A file's bytes, of a disk or of a store.

    Raises BrokenImageError for more than LARGEST_FILE, as a device has.
    """
    if stored:
        return stores.read(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise decoding.BrokenImageError(f"no image: it has {size:,} bytes")
        return file.read()
