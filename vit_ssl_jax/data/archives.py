"""Images in tar archives, read where they lie: an index of members, and nothing unpacked.

An archive, or a folder of them. Archives in an archive (ImageNet's train) are looked
into; WebDataset's `.cls` beside an image is its class.
"""

import dataclasses
import os
import pathlib
import re
import tarfile

from vit_ssl_jax.data import classes, layout, walk
from vit_ssl_jax.errors import UserError

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


@dataclasses.dataclass(frozen=True)
class Member:
    """Bytes of a file in an archive."""

    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; raises OSError where there are fewer."""
        with open(self.archive, "rb") as file:
            content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) < self.size:
            raise OSError(f"{self.archive} is shorter than it was")
        return content


def find_archives(top: pathlib.Path) -> list[pathlib.Path]:
    """The archives that a path is or holds; UserError for packed ones."""
    paths = [top] if top.is_file() else sorted(top.glob("*"))
    packed = [path.name for path in paths if path.name.lower().endswith(PACKED)]
    if packed:
        raise UserError(
            f"{packed[0]} is packed, so nothing in it can be read by its place; unpack "
            "it to a tar or a folder first (gunzip, unzip)"
        )
    return [path for path in paths if path.suffix.lower() == ".tar" and path.is_file()]


def index(top: pathlib.Path) -> tuple[dict[str, Member], dict[str, str]]:
    """Images of archives: `({path: Member}, {path: class} of those that say it)`.

    Paths are as if all were unpacked side by side, each into a folder: of the split that
    the archive's name tells ("..._train.tar", "val-0001.tar"), else of its own name, which
    is a class. Of a single archive without a split in its name, its own paths. Raises
    UserError for a damaged archive and for paths that lead out of it.
    """
    images, classes = {}, {}
    archives = find_archives(top)
    for path in archives:
        split = split_of(path.stem)
        folder = split or ("" if len(archives) == 1 else path.stem)
        try:
            with tarfile.open(path, "r:") as opened:
                look_into(opened, str(path), 0, folder, images, classes)
        except (tarfile.TarError, EOFError) as error:
            raise UserError(
                f"{path} is damaged or only a part of the file ({error}); copy it again"
            ) from None
        check_end(path)
    return images, classes


def arrange(top: pathlib.Path, labels_file: str):
    """Images of archives by split: `({path: Member}, layout.Layout, {(split, path): class})`.

    The classes are those that `.cls` or a labels file (see `classes.read_named`) tells.
    Raises UserError as `index` does, and where there is no image.
    """
    members, told = index(top)
    if not members:
        raise UserError(f"no images in {top}")
    splits = layout.arrange(top, sorted(members))
    named = classes.read_named(labels_file, splits) if labels_file else {}
    return members, splits, named | name_told(told, splits)


def place(members, src, path):
    """Where an image lies: a file, or a member of an archive."""
    return members[path.relative_to(src).as_posix()] if members else path


def name_told(told, splits):
    """Classes that stand beside images, `{path without suffix: class}`, by their images."""
    if not told:
        return {}
    return {
        (name, path): told[stem]
        for name, split in splits.splits.items()
        for path in split.paths
        if (stem := "/".join(filter(None, [name, path])).rsplit(".", 1)[0]) in told
    }


def split_of(stem: str) -> str:
    """The split that a word of an archive's name is; "" for none."""
    words = re.split(r"[_.\-]", stem)
    return next((layout.meaning_of(w) for w in words if layout.meaning_of(w)), "")


def look_into(opened, archive, start, folder, images, classes) -> None:
    """Adds the images of an opened archive that begins at byte `start` of a file."""
    for member in opened:
        check_name(member.name, archive)
        if not member.isfile():
            continue
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        path, suffix = "/".join(parts), os.path.splitext(parts[-1])[1].lower()
        place = start + member.offset_data
        if suffix == ".tar":
            inside = "/".join(filter(None, [folder, path[: -len(suffix)]]))
            with tarfile.open(fileobj=opened.extractfile(member), mode="r:") as inner:
                look_into(inner, archive, place, inside, images, classes)
        elif suffix in walk.SUFFIXES:
            where = "/".join(filter(None, [folder, path]))
            if where in images:
                raise UserError(f"{archive}: {where} is there twice")
            images[where] = Member(archive, place, member.size)
        elif suffix == ".cls":
            where = "/".join(filter(None, [folder, path[: -len(suffix)]]))
            text = opened.extractfile(member).read(100)
            classes[where] = text.decode(errors="replace").strip()


def check_name(name: str, archive: str) -> None:
    """Raises UserError for a member that would be unpacked outside of its folder."""
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(
            f"{archive}: the path {name!r} leads out of the archive; such an archive "
            "isn't read"
        )


def check_end(path: pathlib.Path) -> None:
    """Raises UserError for an archive without its end: two blocks of zeros."""
    with open(path, "rb") as file:
        file.seek(-min(1024, path.stat().st_size), os.SEEK_END)
        if any(file.read()):
            raise UserError(f"{path} has no end, as half a download has; copy it again")
