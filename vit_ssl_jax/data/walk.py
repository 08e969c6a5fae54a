"""Walks a directory for image files: what is one, what isn't, and links that turn back."""

import collections
import dataclasses
import os
import pathlib

from PIL import features

from vit_ssl_jax.errors import UserError

AVIF = {".avif"} if "avif" in features.get_supported_modules() else set()
# What `decoding` reads. A file of another suffix, or of none, is one if it begins as one.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp"),
    *(".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"),
    *(".jpf", ".jpx", ".j2c", ".tga", ".pcx"),
} | AVIF
# Pictures that nothing here decodes, though some begin as a TIFF does.
UNREADABLE = {
    *(".heic", ".heif", ".hif", ".jxl", ".npy", ".npz", ".svg", ".psd", ".pdf", ".exr"),
    *(".hdr", ".dcm", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srw"),
    *(".raf", ".orf", ".rw2", ".pef", ".raw", ".svs", ".mp4", ".mov", ".avi", ".mkv"),
    *(".parquet", ".arrow", ".h5", ".hdf5", ".tfrecord", ".tar", ".zip", ".gz", ".7z"),
} | ({".avif"} - AVIF)
SPECIAL = "pipes and devices"  # where another file's suffix is
SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
HEAD = 16  # bytes


@dataclasses.dataclass
class Files:
    """What lies below a directory, paths relative to it, as `os.sep` parts them.

    images: paths of image files, sorted.
    others: suffix -> paths of files that are none.
    links: links to folders that weren't followed, for their images are found without.
    """

    images: list[str] = dataclasses.field(default_factory=list)
    others: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    links: list[str] = dataclasses.field(default_factory=list)


def find_files(top: pathlib.Path, followed=lambda path: False) -> Files:
    """Lists the files below `top`, any folder once; links to folders are followed.

    followed: path of a link -> whether it is followed even to a folder that is found
        elsewhere below `top` (but never to one that it lies in).

    Names that begin with a dot, and folders that systems make, are skipped. Raises
    UserError for a folder that can't be opened.
    """
    files = Files()
    whole = os.path.realpath(top)
    try:
        _walk(files, str(top), "", (whole,), {whole}, followed)
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be read ({error.strerror}); give the right to, or "
            "move it out of the image folder"
        ) from None
    files.images.sort()
    files.links.sort()
    return files


def _walk(files, folder, inside, above, seen, followed) -> None:
    """Adds what lies in `folder`; `above` are the real paths that led to it."""
    with os.scandir(folder) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        name = entry.name
        if is_skipped(name):
            continue
        path = os.path.join(inside, name)
        if not entry.is_dir():
            _add_file(files, entry, path)
            continue
        real, visited = os.path.join(above[-1], name), seen
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            below = f"{real}{os.sep}"
            turns_back = any(f"{a}{os.sep}".startswith(below) for a in above)
            elsewhere = below.startswith(f"{above[0]}{os.sep}") and not followed(path)
            if turns_back or elsewhere:
                files.links.append(path)
                continue
            if followed(path):
                visited = set()  # a split has images of its own, or shares them
        if real in visited:
            files.links.append(path)
            continue
        visited.add(real)
        _walk(files, entry.path, path, (*above, real), visited, followed)


def is_skipped(name: str) -> bool:
    """Whether a file or folder of this name is left out without a word."""
    return name.startswith(".") or name in SYSTEM


def suffix_of(path: str) -> str:
    """A file's suffix, ".jpg"."""
    return os.path.splitext(path)[1].lower()


def _add_file(files: Files, entry: os.DirEntry, path: str) -> None:
    suffix = suffix_of(path)
    if not entry.is_file() and os.path.exists(entry.path):
        files.others[SPECIAL].append(path)  # reading it may never end
        return
    image = suffix in SUFFIXES
    if not image and suffix not in UNREADABLE and entry.is_file():
        image = begins_as_image(entry.path)
    if image:
        files.images.append(path)
    else:
        files.others[suffix].append(path)


def begins_as_image(path: str | os.PathLike) -> bool:
    """Whether a file's first bytes are those of a format that is read."""
    try:
        with open(path, "rb") as file:
            return is_head(file.read(HEAD))
    except OSError:
        return False


def is_head(head: bytes) -> bool:
    """Whether a file's first HEAD bytes are those of a format that is read."""
    if head[4:12] == b"ftypavif":
        return ".avif" in SUFFIXES
    netpbm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    bmp = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    return head.startswith(BEGINNINGS) or (len(head) > 3 and (netpbm or webp or bmp))


def describe_others(others: dict[str, list[str]]) -> str:
    """What isn't read, by suffix, as "2 .heic, 1 .npy (can't be read), 3 .txt"; "".

    "can't be read" is said of pictures in a form that isn't decoded.
    """
    order = sorted(others, key=lambda suffix: (suffix not in UNREADABLE, suffix))
    names = [
        f"{len(others[suffix]):,} {suffix or 'without a suffix'}"
        + (" (can't be read)" if suffix in UNREADABLE else "")
        for suffix in order
    ]
    return ", ".join(names)
