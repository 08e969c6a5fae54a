"""The file names of a prepared set's images, where one of its features has them."""

import concurrent.futures
import hashlib
import os
import pathlib
from collections.abc import Callable

import tqdm
from etils import epath

from vit_ssl_jax.errors import UserError

KEYS = "file_name", "id"  # such features: TFDS's, and that of our own sets
AT_ONCE, READERS = 100, 8  # records
LONG = 100_000  # names that are worth remembering


def find(
    builder, where: str, split: str, open_raw: Callable
) -> Callable[[], list[str]] | None:
    """What gives the names of a split's images, in order; None where none has them.

    where: the set, for messages. open_raw: opens its records as they are written.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    texts = [key for key, f in features.items() if isinstance(f, tfds.features.Text)]
    key = next((key for key in KEYS if key in texts), None)
    if key is None:
        return None

    def names() -> list[str]:
        data = open_raw()
        info = (epath.Path(builder.data_dir) / "dataset_info.json").read_text()
        text = tfds.features.FeaturesDict({key: features[key]})
        return remember(
            (where, split, info), len(data), lambda: read(data, text, key, where)
        )

    return names


def read(data, text, key: str, where: str) -> list[str]:
    """The text `key` of every record; UserError where one can't be read."""

    def names_from(first: int) -> list[str]:
        ids = range(first, min(first + AT_ONCE, len(data)))
        records = map(text.deserialize_example_np, data.__getitems__(list(ids)))
        return [record[key].decode(errors="replace") for record in records]

    starts = range(0, len(data), AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        parts = pool.map(names_from, starts)
        bar = tqdm.tqdm(parts, "file names", len(starts), disable=None)
        try:
            return [name for part in bar for name in part]
        except RuntimeError as error:  # of the reader
            raise UserError(
                f"the file names of {where} can't be read: {error}"
            ) from error


def remember(about: tuple, length: int, names: Callable[[], list[str]]) -> list[str]:
    """What `names` gives; of a long set it is kept in the user's cache folder.

    about: what tells that it is the same set.
    """
    if length < LONG:
        return names()
    digest = hashlib.sha256(repr(about).encode()).hexdigest()
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    file = pathlib.Path(root) / "vit_ssl_jax" / "names" / f"{digest}.txt"
    if file.exists() and len(kept := file.read_text().splitlines()) == length:
        return kept
    found = names()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text("\n".join(found) + "\n")
        part.replace(file)
    except OSError:
        pass  # it is found again the next time
    return found
