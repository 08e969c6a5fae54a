"""Reads sets that TensorFlow Datasets prepared in ArrayRecord form, without TensorFlow.

The folder alone is read, `DIR/NAME[/CONFIG]/VERSION`, so sets that no registry knows
work as well. Images stay encoded for `decoding.decode`, and of a record only what is
needed is parsed.
"""

import concurrent.futures
import dataclasses
import errno
import functools
from collections.abc import Callable, Iterable

import numpy as np
from etils import epath

from vit_ssl_jax.data import decoding, feature_file, labels, names, stores, unprepared
from vit_ssl_jax.errors import UserError

INFO = "dataset_info.json"
FORMAT = "array_record"
AT_RANDOM = "readahead_buffer_size:0,max_parallelism:0"  # how a file's end is read
OPENED = 32  # files at a time
DEFAULT_DIRECTORY = "~/tensorflow_datasets"


@dataclasses.dataclass(frozen=True)
class Records:
    """Records of a split: `read(i)` is an image, encoded or pixels, and its label.

    names: gives the file names of all, in order, from a feature; None where none has them.
    """

    folder: epath.Path
    length: int
    read: Callable[[int], tuple[bytes | np.ndarray, int | np.ndarray]]
    label: labels.Label
    names: Callable[[], list[str]] | None


def open_records(name: str, directory: str, split: str, label: str) -> Records:
    """Opens a split of a prepared set; its image is the feature "image" or else the
    first image by name.

    label: see `labels.find_label`.

    Raises UserError if it isn't prepared there, isn't ArrayRecord, has no such split,
    no image, no such label or lacks files.
    """
    import tensorflow_datasets as tfds  # here because it is slow to import

    builder, folder = open_builder(name, directory, split)
    where, features = f"{name} in {folder}", builder.info.features
    image_key = labels.choose(features, tfds.features.Image, "image")
    if not image_key:
        there = ", ".join(sorted(features))
        raise UserError(f"{where} has no image feature: it has {there}.")
    count = functools.partial(_count_classes, builder, where)
    labelling = labels.find_label(features, label, where, count)
    keys = image_key, *labelling.needs
    length, read_features = open_features(builder, where, split, keys)

    def read(i: int) -> tuple[bytes | np.ndarray, int | np.ndarray]:
        record = read_features(i)
        image = record[image_key]
        if labelling.binary:
            image = (decoding.decode(image) > 0) * np.uint8(255)
        return image, labelling.read(record)

    named = names.find(builder, where, split, lambda: _open_raw(builder, split))
    return Records(folder, length, read, labelling, named)


def open_builder(name: str, directory: str, split: str):
    """The builder of a prepared set and its folder; raises as `open_records`."""
    import tensorflow_datasets as tfds

    top = epath.Path(directory or DEFAULT_DIRECTORY).expanduser()
    if stores.is_stored(top):
        stores.check(top)
    folder = _find_version(top, name.replace(":", "/"))
    feature_file.check(folder)
    builder = tfds.builder_from_directory(folder)
    _check(name, folder, builder.info, split)
    return builder, folder


def open_features(
    builder, where: str, split: str, keys: Iterable[str]
) -> tuple[int, Callable[[int], dict]]:
    """The number of records, and i -> some features of record i, images encoded."""
    import tensorflow_datasets as tfds

    data = _open_raw(builder, split)
    _check_files(where, builder.info.splits[split])
    chosen = {key: builder.info.features[key] for key in keys}
    images = [key for key, f in chosen.items() if isinstance(f, tfds.features.Image)]
    skip = {key: tfds.decode.SkipDecoding() for key in images}
    features = tfds.features.FeaturesDict(chosen)
    decode = functools.partial(features.deserialize_example_np, decoders=skip)

    def read(i: int) -> dict:
        try:
            return decode(data[i])
        except RuntimeError as error:  # of the reader
            if stores.is_stored(where) and "Corrupted" not in str(error):
                raise UserError(f"{where} can't be read any more: {error}") from error
            lost = 0 if "Corrupted" in str(error) else errno.EIO
            raise OSError(lost, f"record {i} of {where}: {error}") from error

    return len(data), read


def _open_raw(builder, split: str):
    """The records of a split by number, as they are written."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(
        split=split, file_format=FORMAT, deserialize_method=raw
    )


def _count_classes(builder, where: str, key: str) -> int:
    """Classes of an integer feature, by its largest value; reads all records."""
    values = set()
    for split in builder.info.splits:
        length, read = open_features(builder, where, split, [key])
        values.update(read(i)[key] for i in range(length))
    if min(values) < 0:
        raise UserError(
            f"config.data.label: feature {key!r} of {where} is {min(values)} somewhere, "
            "but classes are counted from 0."
        )
    return max(values) + 1


def _find_version(top: epath.Path, name: str) -> epath.Path:
    """The folder that holds the set's records: newest version, only config.

    `top` may be the set's own folder, too.
    """
    if top.name == name.split("/")[0] and not (top / name).exists():
        top = top.parent
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
        f"data set {name!r} is neither embedded, folder, tars, huggingface or fake, nor "
        f"prepared in {top} "
        f"({there}). {unprepared.how_to_prepare(name, top)}"
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


def _check_files(where: str, split) -> None:
    """Raises UserError unless a split's files are there with the records they should have.

    Half a file opens as an empty one, and reading fails only when it is a record's turn.
    """
    for path in split.filepaths:
        if not path.exists():
            raise UserError(
                f"{where} is incomplete: {path.name} is missing. "
                "Copy it there or prepare the set again."
            )
    from array_record.python import array_record_module  # Linux alone has it

    def count(path: epath.Path) -> int:
        try:
            reader = array_record_module.ArrayRecordReader(str(path), AT_RANDOM)
            found = reader.num_records()
            reader.close()
            return found
        except RuntimeError:
            return 0

    with concurrent.futures.ThreadPoolExecutor(OPENED) as pool:
        counts = list(pool.map(count, split.filepaths))
    shards = zip(split.filepaths, counts, split.shard_lengths, strict=True)
    for path, found, wanted in shards:
        if found != wanted:
            raise UserError(
                f"{where}: {path.name} holds {found:,} records, not the {wanted:,} that "
                f"{INFO} says; it is damaged, a part of the file, or of another version: "
                "copy it again."
            )
