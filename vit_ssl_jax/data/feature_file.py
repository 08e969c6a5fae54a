"""What a prepared set says of its features, looked at before TFDS imports what it names."""

import json

from vit_ssl_jax.errors import UserError

FILE = "features.json"
KNOWN = "tensorflow_datasets.core.features."  # modules of TFDS itself
NAMES = ("pythonClassName", "python_class_name", "type")


def check(folder) -> None:
    """Raises UserError if `features.json` in a folder isn't whole or names a class that
    isn't one of TFDS's features.

    TFDS imports the module of any class named there, so a copied set could run a file of
    the working folder.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(
            f"{folder} is incomplete: {FILE} is missing; copy the set again"
        )
    try:
        foreign = sorted(set(find_foreign(json.loads(path.read_text()))))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} isn't whole: {error}; copy the set again") from error
    if foreign:
        raise UserError(
            f"{path} names {', '.join(foreign)}, but only features of TFDS's own "
            f"({KNOWN}*) are read: a set may not bring code. Prepare it with those"
        )


def find_foreign(value):
    """Yields the names of classes in a `features.json` that aren't TFDS's own."""
    children = value if isinstance(value, list) else ()
    if isinstance(value, dict):
        children = value.values()
        for key in NAMES:
            name = value.get(key)
            if isinstance(name, str) and not name.startswith(KNOWN):
                yield repr(name)
    for child in children:
        yield from find_foreign(child)
