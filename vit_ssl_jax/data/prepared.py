"""Reads sets that TensorFlow Datasets prepared in ArrayRecord form, without TensorFlow.

The folder alone is read, `DIR/NAME[/CONFIG]/VERSION`, so sets that no registry knows
work as well. Images stay encoded: decoding is `crops.decode`'s.
"""

import dataclasses
from collections.abc import Sequence

from etils import epath

from vit_ssl_jax.errors import UserError

INFO = "dataset_info.json"
FORMAT = "array_record"
DEFAULT_DIRECTORY = "~/tensorflow_datasets"


@dataclasses.dataclass(frozen=True)
class Records:
    """`data[i]` is a dict; its `image_key` holds bytes, its `label_key` an int."""

    folder: epath.Path
    data: Sequence
    image_key: str
    label_key: str | None
    class_names: tuple[str, ...]


def open_records(name: str, directory: str, split: str) -> Records:
    """Opens a split of a prepared set; takes its first image and class label features.

    Raises UserError if it isn't prepared there, isn't ArrayRecord, has no such split,
    no image or lacks files.
    """
    import tensorflow_datasets as tfds  # here because it is slow to import

    top = epath.Path(directory or DEFAULT_DIRECTORY).expanduser()
    folder = _find_version(top, name.replace(":", "/"))
    builder = tfds.builder_from_directory(folder)
    info = builder.info
    _check(name, folder, info, split)
    features = info.features
    image_key = _first(features, tfds.features.Image)
    label_key = _first(features, tfds.features.ClassLabel)
    if image_key is None:
        raise UserError(
            f"{name} in {folder} has no image feature: it has {', '.join(features)}."
        )
    images = [key for key, f in features.items() if isinstance(f, tfds.features.Image)]
    skip = {key: tfds.decode.SkipDecoding() for key in images}
    data = builder.as_data_source(split=split, decoders=skip, file_format=FORMAT)
    _check_files(name, folder, info.splits[split].filepaths)
    names = tuple(features[label_key].names) if label_key else ()
    return Records(folder, data, image_key, label_key, names)


def _find_version(top: epath.Path, name: str) -> epath.Path:
    """The folder that holds the set's records: newest version, only config."""
    for folder in (top / name, top):
        if (folder / INFO).exists():
            return folder
    versions = _versions(top / name)
    if versions:
        return versions[-1]
    configs = [config for config in _folders(top / name) if _versions(config)]
    if len(configs) == 1:
        return _versions(configs[0])[-1]
    if configs:
        choices = ", ".join(f"{name}/{config.name}" for config in configs)
        raise UserError(f"data set {name!r} in {top} has configs: choose {choices}.")
    names = [folder.name for folder in _folders(top) if folder.name != "downloads"]
    there = f"it has {', '.join(names) or 'nothing'}"
    if not top.exists():
        there = "which doesn't exist"
    raise UserError(
        f"data set {name!r} is neither embedded, folder or fake, nor prepared in {top} "
        f"({there}). To download and prepare a TFDS set (some need "
        f"TensorFlow for it): python -c 'import "
        f'tensorflow_datasets as tfds; tfds.data_source("{name}", data_dir="{top}")\''
    )


def _versions(folder: epath.Path) -> list[epath.Path]:
    """Sub-folders that hold a prepared version, oldest first."""
    versions = [path for path in _folders(folder) if (path / INFO).exists()]
    return sorted(versions, key=_version_number)


def _version_number(folder: epath.Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _folders(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _check(name: str, folder: epath.Path, info, split: str) -> None:
    """Raises UserError unless the set is the asked one, readable, and has the split."""
    if info.name != name.replace(":", "/").split("/")[0]:
        raise UserError(f"{folder} holds data set {info.name!r}, not {name!r}.")
    formats = [info.file_format, *info.alternative_file_formats]
    formats = [file_format.value for file_format in formats]
    if FORMAT not in formats:
        raise UserError(
            f"{name} in {folder} is in {formats[0]} form, but only {FORMAT} can be "
            f"read. Convert it where TensorFlow is installed: tfds convert_format "
            f"--dataset_version_dir={folder} --out_file_format={FORMAT}"
        )
    if split not in info.splits:
        raise UserError(
            f"{name} in {folder} has no split {split!r}: choose "
            f"{', '.join(info.splits)}."
        )


def _check_files(name: str, folder: epath.Path, paths: list[epath.Path]) -> None:
    """Raises UserError if a file is missing; reading would fail only when it's due."""
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{name} in {folder} is incomplete: {path.name} is missing. "
                "Copy it there or prepare the set again."
            )


def _first(features, kind: type) -> str | None:
    """Key of the first top-level feature of a kind, in the order of the set's file."""
    return next((key for key, f in features.items() if isinstance(f, kind)), None)
