"""A split of a data set, read by numbers; its slices and sums.

A split may carry a slice in images or percent: "train[:10%]", "test[50%:]",
"train[100:-100]". Percent are rounded to the nearest image. Parts are put together
by "+": "train[:800]+validation[:200]".
"""

import bisect
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from vit_ssl_jax.data.sizes import MAX_PIXELS
from vit_ssl_jax.errors import UserError

SPLIT = re.compile(r"([^\[\]+]+?)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images that are read by number, `0 <= i < len(source)`, from any thread.

    name: for messages, e.g. "cifar10 'train'".
    read: i -> (image, label); encoded bytes or uint8 `[h w 3]`; an int, or uint8
        `[num_classes]`, 1 at all that are right, where that can be several. Of `pairs`
        the label is a map, encoded or `[h w]`.
    where: i -> what to call image i in a message, e.g. its path.
    class_names: one per class; num_classes is 0 where there are no labels.
    no_label: the label that says that there is none: -1, or zeros.
    alpha: what lies behind transparent images, "white" or "black".
    notes: what was guessed or left out when it was opened, a line each.
    files: whether `where` gives the path of a file.
    quick: whether JPEGs are decoded faster and less exactly, see `decoding.decode`.
    max_pixels: what has more is refused or read smaller, see `decoding.decode`.
    retry_seconds: how long images that can't be read are waited for, see `patience`.
    portable: whether it can be sent to another process, which reads it there.
    parts: of a mixture: `(length, weight)` of each of its sets, see `mixture`.
    names: gives the file names of all images, in their order, with as much of the path
        as is known; None where they have none.
    chosen: of images chosen by a list: a hash of it; "": all of them.
    broken: numbers of the images that could not be decoded; the readers in
        `reading` add to it, and it is all of a source that ever changes.
    """

    name: str
    length: int
    read: Callable[[int], tuple[bytes | np.ndarray, int | np.ndarray]]
    where: Callable[[int], str]
    class_names: tuple[str, ...] = ()
    no_label: int | np.ndarray = -1
    alpha: str = "white"
    notes: tuple[str, ...] = ()
    files: bool = False
    quick: bool = False
    max_pixels: int = MAX_PIXELS
    retry_seconds: float = 300.0
    portable: bool = False
    parts: tuple[tuple[int, float], ...] = ()
    names: Callable[[], list[str]] | None = None
    chosen: str = ""
    broken: set[int] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return self.length

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def pick(self, numbers: Sequence[int]) -> "Source":
        """Some of the images, in the order of their `numbers`, as a source of their own."""
        return dataclasses.replace(
            self,
            length=len(numbers),
            read=lambda i: self.read(int(numbers[i])),
            where=lambda i: self.where(int(numbers[i])),
            names=None,
            broken=set(),
        )

    def part(self, first: int, last: int) -> "Source":
        """Images `first` to `last` - 1 as a source of their own."""
        return dataclasses.replace(
            self,
            length=last - first,
            read=lambda i: self.read(first + i),
            where=lambda i: self.where(first + i),
            broken=set(),
        )


def cut(split: str, open_whole: Callable[[str], Source]) -> Source:
    """The source that `split` spells, of whole ones that `open_whole` opens by name."""
    texts = [text.strip() for text in split.split("+")]
    parsed = [parse_split(text) for text in texts]
    parts = [
        _slice(open_whole(split_name), text, start, stop)
        for text, (split_name, start, stop) in zip(texts, parsed, strict=True)
    ]
    cure = "take parts that are labelled alike, or set config.data.labels=False"
    of = f"the parts of split {split!r}"
    return parts[0] if len(parts) == 1 else join(parts, of, cure)


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
    return source.part(first, last)


def join(parts: list[Source], of: str, cure: str) -> Source:
    """Sources one after the other as one; UserError where classes differ.

    of, cure: what they are, and what to do about it, for the message.
    """
    if any(part.class_names != parts[0].class_names for part in parts):
        counts = " and ".join(str(part.num_classes) for part in parts)
        raise UserError(f"{of} have different classes ({counts} of them): {cure}.")
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
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return dataclasses.replace(
        parts[0],
        name=name,
        length=ends[-1],
        read=read,
        where=where,
        notes=notes,
        files=all(part.files for part in parts),
        portable=all(part.portable for part in parts),
        broken=set(),
    )


def _boundary(text: str, n: int) -> int:
    """Number of images that "10" or "10%" of n stand for; negative from the end."""
    value = round(int(text[:-1]) * n / 100) if text.endswith("%") else int(text)
    return value + n if text.startswith("-") else value


def without_labels(source: Source) -> Source:
    """A source of the same images, with every label -1."""
    return dataclasses.replace(
        source, read=lambda i: (source.read(i)[0], -1), class_names=(), no_label=-1
    )
