"""Images by a list of their names, as ImageNet's published parts are given.

SimCLR's `1percent.txt` and `10percent.txt` have a file name a line, MSN's lists too.
"""

import dataclasses
import hashlib
import os

import numpy as np
from etils import epath

from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

SHOWN = 3  # names in a message


def keep_listed(source: Source, path: str) -> Source:
    """The images of a source that a list names, in the source's order.

    A name is a file's own, or the end of a path ("n01440764/n01440764_10074.JPEG"). Raises
    UserError for a name of no image, or of several, for one that is there twice, and for a
    source whose images have no names.
    """
    wanted = read_list(path)
    if source.names is None:
        raise UserError(
            f"config.data.list: images of {source.name} have no file names; a list is for "
            "a folder, tars, or a prepared set with the feature file_name (or id)"
        )
    names = source.names()
    numbers = find(wanted, names, path, source.name)
    note = f"{len(numbers):,} of the {len(names):,} images of {source.name}, by {path}"
    return dataclasses.replace(
        source.pick(numbers),
        notes=(*source.notes, note),
        chosen=hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest(),
    )


def read_list(path: str) -> list[str]:
    """The names in a list, a line each; raises UserError for none, and for two alike."""
    try:
        lines = epath.Path(path).expanduser().read_text().splitlines()
    except Exception as error:  # noqa: BLE001 - stores of objects have their own
        raise UserError(
            f"config.data.list: {path} can't be read ({error}); give a text file of image "
            "names, one a line"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"config.data.list: {path} is empty; it names no image")
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]
    if twice:
        raise UserError(
            f"config.data.list: {len(twice):,} of the {len(names):,} lines of {path} are "
            f"there already, such as {_show(twice)}; name every image once"
        )
    return names


def find(wanted: list[str], names: list[str], path: str, where: str) -> np.ndarray:
    """Numbers of the names that are wanted, in order; raises UserError, see `keep_listed`."""
    found: dict[str, list[int]] = {name: [] for name in wanted}
    depths = sorted({name.count("/") + 1 for name in wanted})
    for i, name in enumerate(names):
        parts = name.replace(os.sep, "/").split("/")
        for end in {"/".join(parts[-depth:]) for depth in depths}:
            if end in found:
                found[end].append(i)
    missing = [name for name, numbers in found.items() if not numbers]
    if missing:
        raise UserError(
            f"config.data.list: {len(missing):,} of the {len(wanted):,} names in {path} "
            f"are no images of {where}, such as {_show(missing)}; those there are called "
            f"{_show(names)}"
        )
    several = [name for name, numbers in found.items() if len(numbers) > 1]
    if several:
        raise UserError(
            f"config.data.list: {len(several):,} of the {len(wanted):,} names in {path} "
            f"fit several images of {where}, such as {_show(several)}; give the ends of "
            "their paths, CLASS/FILE"
        )
    numbers = np.unique([numbers[0] for numbers in found.values()])
    if len(numbers) < len(wanted):
        raise UserError(
            f"config.data.list: {path} has {len(wanted) - len(numbers):,} images of "
            f"{where} twice, by their file's name and by a path; name each once"
        )
    return numbers


def _show(names: list[str]) -> str:
    return ", ".join(names[:SHOWN])
