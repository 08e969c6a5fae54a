"""The recipes, `configs/NAME.py`: found in a checkout or an installed package, loaded."""

import ast
import difflib
import importlib.util
import inspect
import os
import pathlib

from ml_collections import ConfigDict

import vit_ssl_jax
from vit_ssl_jax.errors import UserError

TASKS = {  # what recipes are for -> how their names begin
    "start here": ("quickstart", "own"),
    "pre-train": (),  # all others
    "fine-tune": ("finetune", "transfer", "lowshot"),
    "evaluate": ("eval", "probe"),
}


def load(name: str | os.PathLike, /, **changes) -> ConfigDict:
    """Loads a recipe, as `--config=NAME[:ARGUMENT]` does, with some values changed.

    name: a file of `configs/` or a path of your own, and what it is given.
    changes: values by key, those inside another by dotted key.

        load("ijepa_vitl.py", batch_size=64, **{"vit.variant": "S/16"})

    The config takes no key that it doesn't have. Raises UserError for a file or a key
    that doesn't exist, and for a value of another type.
    """
    name = os.fspath(name)
    path, _, argument = name.partition(":")
    file = find(path)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"{path} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} has no get_config(): it is no recipe")
    if argument and not inspect.signature(module.get_config).parameters:
        raise UserError(f"{path} takes no argument, and {argument!r} was given")
    try:
        config = module.get_config(*filter(None, [argument]))
    except (TypeError, ValueError) as error:
        # Our recipes begin with their name.
        text = str(error) if path in str(error) else f"{name}: {error}"
        raise UserError(text) from error
    for key, value in changes.items():
        set_value(config, key, value)
    return config.lock()


def find(path: str) -> pathlib.Path:
    """The file of a recipe: `path`, or the one of that name that the package brings.

    `path` may leave out `configs/`. Raises UserError where there is none.
    """
    folders = _folders()
    inside = path.removeprefix("configs/")
    for file in [pathlib.Path(path), *(folder / inside for folder in folders)]:
        if file.is_file():
            return file
    known = {file.name for folder in folders for file in folder.glob("*.py")}
    known = sorted(known - {"__init__.py"})
    close = difflib.get_close_matches(inside, known, n=5, cutoff=0.0)
    raise UserError(f"{path} doesn't exist; did you mean {' or '.join(close)}?")


def _folders() -> list[pathlib.Path]:
    """Where recipes may be: in an installed package, in a checkout."""
    package = pathlib.Path(vit_ssl_jax.__file__).parent
    return [root / "configs" for root in (package, package.parent)]


def describe(path: pathlib.Path) -> str:
    """The first line of a recipe's description."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n")[0]


def listed() -> dict[str, list[pathlib.Path]]:
    """All recipes by what they are for, in the order of their names."""
    folder = next(folder for folder in _folders() if folder.is_dir())
    groups: dict[str, list[pathlib.Path]] = {name: [] for name in TASKS}
    for path in sorted(folder.glob("*.py")):
        first = path.stem.partition("_")[0]
        name = next((n for n, firsts in TASKS.items() if first in firsts), "pre-train")
        if path.stem != "__init__":
            groups[name].append(path)
    return groups


def find_missing(config: ConfigDict, key: str) -> str | None:
    """What to say of a dotted key that `config` hasn't; None where it is there.

    That is the nearest key, or else those that are there.
    """
    place, part = "config", config
    for name in key.split("."):
        known = list(part) if isinstance(part, ConfigDict) else []
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            near = ".".join([*place.split(".")[1:], *close])
            there = f"; {place} has {', '.join(known)}" if known else ""
            return f". Did you mean {near}?" if close else there
        place, part = f"{place}.{name}", part[name]
    return None


def set_value(config: ConfigDict, key: str, value) -> None:
    """Sets `config`'s value at a dotted key; raises UserError where that can't be."""
    hint = find_missing(config, key)
    if hint is not None:
        raise UserError(f"the config has no key {key}{hint}")
    *above, last = key.split(".")
    part = config
    for name in above:
        part = part[name]
    if isinstance(value, bool) and type(part[last]) in (int, float):
        raise UserError(f"config.{key}: give a number, not {value}")
    try:
        part[last] = value
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{key}: {error}") from error


def flatten(config: dict, above: str = "") -> dict:
    """Nested dicts as one, with dotted keys; `above` is put in front of them."""
    flat = {}
    for key, value in config.items():
        inside = isinstance(value, dict)
        flat |= flatten(value, f"{above}{key}.") if inside else {above + key: value}
    return flat


def fill(config: ConfigDict, theirs: dict) -> list[str]:
    """Fills in what a recipe leaves to the encoder it starts from: None in its config.

    theirs: that encoder's config, dotted; what it lacks is of `config.otherwise`. Returns
    the keys that were filled in.
    """
    filled = []
    for section, values in config.get("otherwise", {}).items():
        for name, value in values.items():
            key = f"{section}.{name}"
            if config[section][name] is None:
                found = theirs.get(key, value)
                config[section][name] = (
                    tuple(found) if isinstance(found, list) else found
                )
                filled.append(key)
    return filled
