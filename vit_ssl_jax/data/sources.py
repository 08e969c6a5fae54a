"""Where images come from: `open_source` turns a name, a folder and a split to numbers.

A split may carry a slice in images or percent: "train[:10%]", "test[50%:]",
"train[100:-100]". Percent are rounded to the nearest image. Parts are put together
by "+": "train[:800]+validation[:200]".
"""

import bisect
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable

import numpy as np

from vit_ssl_jax.data import embedded, folder, prepared
from vit_ssl_jax.errors import UserError

FAKE_LENGTH, FAKE_CLASSES, FAKE_SIZE = 1024, 10, 32
SPLIT = re.compile(r"([^\[\]+]+?)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images that are read by number, `0 <= i < len(source)`, from any thread.

    name: for messages, e.g. "cifar10 'train'".
    read: i -> (image, label); encoded bytes or uint8 `[h w 3]`; an int, or uint8
        `[num_classes]`, 1 at all that are right, where that can be several.
    where: i -> what to call image i in a message, e.g. its path.
    class_names: one per class; num_classes is 0 where there are no labels.
    no_label: the label that says that there is none: -1, or zeros.
    broken: numbers of the images that could not be decoded; the readers in
        `pipeline` add to it, and it is all of a source that ever changes.
    """

    name: str
    length: int
    read: Callable[[int], tuple[bytes | np.ndarray, int | np.ndarray]]
    where: Callable[[int], str]
    class_names: tuple[str, ...] = ()
    no_label: int | np.ndarray = -1
    broken: set[int] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return self.length

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def open_source(
    name: str, directory: str, split: str, *, labels: bool = True, label: str = ""
) -> Source:
    """Opens a split of a data set; reads no image yet.

    name: "embedded" (texture patches that come with scikit-image), "folder" (images
        below `directory`), "fake" (coloured noise), or else a TFDS set prepared in
        `directory` as ArrayRecord, "NAME", "NAME/CONFIG" or "NAME/CONFIG/VERSION".
    directory: "" is ~/tensorflow_datasets for TFDS; unused by "embedded" and "fake".
    split: names that the set knows, with or without a slice, put together by "+".
    labels: False ignores labels and class folders: every label is -1.
    label: of a TFDS set, a feature's name or a rule (see `labels.find_label`); "": its
        first class.

    Raises UserError when the set, the split, its slice or the label doesn't exist.
    """
    if label and name in ("embedded", "folder", "fake"):
        raise UserError(
            f"config.data.label: {label!r} chooses among the labels of a prepared set, "
            f"but {name} has one at most; set label=''"
        )

    @functools.cache
    def open_whole(split_name: str) -> Source:
        source = _open_whole(name, directory, split_name, labels=labels, label=label)
        return source if labels else without_labels(source)

    return cut(split, open_whole)


def cut(split: str, open_whole: Callable[[str], Source]) -> Source:
    """What `split` asks for: slices of whole splits, which `open_whole` opens by name."""
    texts = [text.strip() for text in split.split("+")]
    found = [parse_split(text) for text in texts]
    parts = [
        _slice(open_whole(split_name), text, start, stop)
        for text, (split_name, start, stop) in zip(texts, found, strict=True)
    ]
    return parts[0] if len(parts) == 1 else _join(parts, split)


def _open_whole(
    name: str, directory: str, split: str, *, labels: bool, label: str
) -> Source:
    """A split without a slice; it may still have labels where none are wanted."""
    if name == "embedded":
        return _open_embedded(split)
    if name == "fake":
        return _open_fake(split)
    if name == "folder":
        return _open_folder(directory, split, labels)
    return _open_prepared(name, directory, split, label if labels else "")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """Takes "train[10:20%]" apart: `("train", "10", "20%")`; None where left out."""
    parts = SPLIT.fullmatch(split)
    if parts is None:
        raise UserError(
            f"split {split!r} isn't understood: write a name, or a name and a slice "
            "in images or percent, such as train, train[:10%] or train[100:200]; put "
            "several together by +."
        )
    return parts[1], parts[2], parts[3]


def _slice(source: Source, split: str, start: str | None, stop: str | None) -> Source:
    """The part of a source that a slice names; all of it where there is none."""
    if start is None and stop is None:
        return source
    n = len(source)
    first = 0 if start is None else _boundary(start, n)
    last = n if stop is None else _boundary(stop, n)
    if not 0 <= first < last <= n:
        raise UserError(
            f"split {split!r} is images {first} to {last} of the {n} in "
            f"{source.name}: choose a slice that lies within and isn't empty."
        )
    return dataclasses.replace(
        source,
        length=last - first,
        read=lambda i: source.read(first + i),
        where=lambda i: source.where(first + i),
        broken=set(),
    )


def _join(parts: list[Source], split: str) -> Source:
    """Sources one after the other as one."""
    if any(part.class_names != parts[0].class_names for part in parts):
        counts = " and ".join(str(part.num_classes) for part in parts)
        raise UserError(
            f"the parts of split {split!r} have different classes ({counts} of them): "
            "take parts that are labelled alike, or set config.data.labels=False."
        )
    ends = list(itertools.accumulate(len(part) for part in parts))

    def find(i: int) -> tuple[Source, int]:
        """The part that image i is in, and its number there."""
        number = bisect.bisect_right(ends, i)
        part = parts[number]
        return part, i - ends[number] + len(part)

    def read(i: int) -> tuple[bytes | np.ndarray, int | np.ndarray]:
        part, number = find(i)
        return part.read(number)

    def where(i: int) -> str:
        part, number = find(i)
        return part.where(number)

    name = " and ".join(dict.fromkeys(part.name for part in parts))
    return dataclasses.replace(
        parts[0], name=name, length=ends[-1], read=read, where=where, broken=set()
    )


def _boundary(text: str, n: int) -> int:
    """ "10" or "10%" of n images as a number of images; negative from the end."""
    value = round(int(text[:-1]) * n / 100) if text.endswith("%") else int(text)
    return value + n if text.startswith("-") else value


def without_labels(source: Source) -> Source:
    """The same images, every label -1."""
    return dataclasses.replace(
        source, read=lambda i: (source.read(i)[0], -1), class_names=(), no_label=-1
    )


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
    )


def _open_folder(directory: str, split: str, labels: bool) -> Source:
    images = folder.find_images(directory, split, labels=labels)

    def read(i: int) -> tuple[bytes, int]:
        return (images.root / images.paths[i]).read_bytes(), images.labels[i]

    return Source(
        name=f"folder {images.root}",
        length=len(images.paths),
        read=read,
        where=lambda i: str(images.root / images.paths[i]),
        class_names=images.class_names,
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
    )
