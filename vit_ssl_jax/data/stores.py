"""Image files in a store of objects (gs://, s3://): listed and read by fsspec."""

import concurrent.futures
import contextlib
import functools

from etils import epath

from vit_ssl_jax.data import walk
from vit_ssl_jax.errors import CLOUD, UserError

AT_ONCE = 32  # requests
PATIENCE = 60  # seconds for an answer of Google's store; another gets its own default


def is_stored(path) -> bool:
    """Whether a path is in a store of objects."""
    return "://" in str(path)


def find_files(top: epath.Path) -> walk.Files:
    """Lists the files below a folder of a store as `walk.find_files` does.

    Raises UserError where it can't be reached or doesn't exist.
    """
    store, root = open_store(str(top))
    with answered(top):
        paths = store.find(root)
    files, unknown = walk.Files(), []
    for path in paths:
        inside = path[len(root) :].lstrip("/")
        if any(walk.is_skipped(part) for part in inside.split("/")):
            continue
        suffix = walk.suffix_of(inside)
        if suffix in walk.SUFFIXES:
            files.images.append(inside)
        elif suffix in walk.UNREADABLE:
            files.others[suffix].append(inside)
        else:
            unknown.append((path, inside))

    def begins(named):
        return walk.is_head(store.cat_file(named[0], start=0, end=walk.HEAD))

    with answered(top), concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for (_, inside), image in zip(unknown, pool.map(begins, unknown), strict=True):
            kind = files.images if image else files.others[walk.suffix_of(inside)]
            kind.append(inside)
    files.images.sort()
    return files


def read(path) -> bytes:
    """A file's bytes; raises FileNotFoundError, and UserError where the store is silent.

    An image that isn't there is a broken one; without the store all would be.
    """
    store, inside = open_store(str(path))
    with answered(path):
        return store.cat_file(inside)


def check(path) -> None:
    """Raises UserError unless the store of a path answers."""
    store, inside = open_store(str(path))
    with answered(path):
        store.exists(inside)


def open_store(path: str):
    """The file system of a path, and the path in it; UserError where it has none."""
    scheme, _, inside = path.partition("://")
    with answered(path):
        return of_scheme(scheme), inside


@functools.cache
def of_scheme(scheme: str):
    """The file system of a scheme, as "gs"."""
    import fsspec  # here because a folder needs none

    more = dict(requests_timeout=PATIENCE) if scheme in ("gs", "gcs") else {}
    return fsspec.filesystem(scheme, **more)


@contextlib.contextmanager
def answered(path):
    """Makes a UserError of what a store fails with inside, but for a missing file."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} can't be read, its store doesn't answer or refuses ({why[0]})"
            f"{CLOUD}; the same command goes on from the last checkpoint"
        ) from error
