"""Sources of images that have a map each, of folders or prepared by TFDS.

`read(i)` of such a source is the image, encoded or pixels, and in the place of a label
its map, as `maps` decodes it. Slices and sums of splits are those of any source.
"""

import functools
import pathlib
import sys

import grain
import numpy as np

from vit_ssl_jax.data import (
    draws,
    joint,
    making,
    maps,
    mixture,
    pair_folders,
    pipeline,
    prepared,
    reading,
    workers,
)
from vit_ssl_jax.data.source import Source, cut
from vit_ssl_jax.errors import UserError

LOOKED_AT = 8  # pairs, all over a split, before any long work


def open_pairs(name: str, directory: str, split: str, *, label: str = "") -> Source:
    """Opens a split of images with maps; reads none yet.

    name: a layout of folders (see `pair_folders`), or a set that TFDS has prepared in
        `directory` (scene_parse150, nyu_depth_v2, ...; VOC 2012 there has no maps).
    label: of a TFDS set, the feature of the map; "": the only one that can be.

    Raises UserError when the set, the split, its slice or the map doesn't exist.
    """
    if label and name in pair_folders.LAYOUTS:
        raise UserError(
            f"label: {label!r} chooses among the features of a prepared set, and "
            f"{name} is a folder; set label=''"
        )

    @functools.cache
    def open_whole(split_name: str) -> Source:
        if name in pair_folders.LAYOUTS:
            return _open_folder(name, directory, split_name)
        return _open_prepared(name, directory, split_name, label)

    return cut(split, open_whole)


def _open_folder(name: str, directory: str, split: str) -> Source:
    found = pair_folders.find(name, directory, split)

    def read(i: int) -> tuple[bytes, bytes]:
        image, read = (path.read_bytes() for path in found.paths[i])
        return image, read

    return Source(
        name=f"{name} {split!r} in {pathlib.Path(directory)}",
        length=len(found.paths),
        read=read,
        where=lambda i: str(found.paths[i][0]),
        notes=found.notes,
        files=True,
        portable=True,
    )


def _open_prepared(name: str, directory: str, split: str, feature: str) -> Source:
    builder, folder = prepared.open_builder(name, directory, split)
    where = f"{name} in {folder}"
    image_key, map_key = _choose_features(builder.info.features, feature, where)
    keys = image_key, map_key
    length, read_features = prepared.open_features(builder, where, split, keys)

    def read(i: int) -> tuple:
        record = read_features(i)
        return record[image_key], record[map_key]

    return Source(
        name=f"{name} {split!r} in {folder}",
        length=length,
        read=read,
        where=lambda i: f"record {i} of {name} {split!r} in {folder}",
        portable=True,
    )


def _choose_features(features, feature: str, where: str) -> tuple[str, str]:
    """The features of image and map; UserError unless there is one of each."""
    import tensorflow_datasets as tfds

    def can_be(key):
        shape = getattr(features[key], "shape", ())
        return key != "image" and isinstance(shape, tuple) and len(shape) in (2, 3)

    if "image" not in features or not isinstance(
        features["image"], tfds.features.Image
    ):
        raise UserError(f"{where} has no feature 'image' of images")
    there = [key for key in features if can_be(key)]
    if feature and feature not in there:
        raise UserError(
            f"label: {where} has no map {feature!r}; choose "
            f"{', '.join(there) or 'another set, for it has none'}"
        )
    if not feature and len(there) != 1:
        known = f"{', '.join(there)}: name one by label" if there else "none"
        hint = "" if there else " (VOC 2012 of TFDS has boxes alone: take set='voc')"
        raise UserError(f"{where}: features that can be maps are {known}{hint}")
    return "image", feature or there[0]


def read_pair(source: Source, i: int, kind: maps.Kind):
    """Pair i or the next whose image is whole: uint8 `[h w 3]`, map `[h w]`, number.

    Raises UserError for a map that can't be used: it isn't left out as a broken image
    is, for the whole set may have been converted wrongly.
    """
    image, encoded, number = reading.read_whole(source, i)
    return image, decode_map(source, number, image, encoded, kind), number


def decode_map(source: Source, i: int, image, encoded, kind: maps.Kind) -> np.ndarray:
    """The map of an image; UserError unless it has the image's size."""
    where = source.where(i)
    read = kind.decode(encoded, where)
    if read.shape != image.shape[:2]:
        raise UserError(
            f"{where}: its map has {read.shape[0]} x {read.shape[1]} px, the image "
            f"{image.shape[0]} x {image.shape[1]} (height x width); each pixel needs "
            "its own"
        )
    return read


def check(source: Source, kind: maps.Kind) -> None:
    """Raises UserError for what is wrong with some pairs, all over the source."""
    count = min(LOOKED_AT, len(source))
    for i in sorted({n * (len(source) - 1) // max(count - 1, 1) for n in range(count)}):
        read_pair(source, i, kind)


def train_batches(
    source: Source,
    kind: maps.Kind,
    how: joint.Joint,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int | None = None,
):
    """Yields for ever uint8 image `[b H W 3]`, map `[b H W]` and int32 id `[b]`.

    As `pipeline.train_batches`: a batch depends on (seed, step) alone, and the shards
    `(index, number)` of all processes in order are the batch. By threads of this
    process, each a pair at a time.
    """
    local, _ = pipeline.split(batch_size, shard[1])
    rows = {
        "image": ((*how.size, 3), "uint8"),
        "map": (how.size, kind.dtype),
        "id": ((), "int32"),
    }
    order = mixture.order_of(len(source), source.parts, seed)

    def write(first: int, out: making.Arrays) -> None:
        for row, rng in enumerate(draws.by_counter(seed, first, len(out["id"]))):
            image, read, number = read_pair(source, order[first + row], kind)
            out["image"][row], out["map"][row] = how(rng, image, read, kind)
            out["id"][row] = number

    def position(number: int) -> tuple[int, int]:
        step, offset = divmod(number, local)
        return step * batch_size + shard[0] * local + offset, 1

    hands = workers.choose(source, 0, threads, local * making.bytes_of(rows))
    numbers = grain.MapDataset.range(start_step * local, sys.maxsize)
    return making.batches(write, numbers.map(position), rows, (local, 1), hands, 2)


def in_order(source: Source, kind: maps.Kind, threads: int | None = None):
    """Yields every pair once, of its own size: image, map and number.

    Those whose image is broken are left out, and counted in `source.broken`.
    """

    def read(i: int):
        whole = reading.try_to_read(source, i)
        if whole is None:
            return i, None, None
        return i, whole[0], decode_map(source, i, *whole, kind)

    hands = workers.choose(source, 0, threads, 0)
    options = grain.ReadOptions(hands.threads, 2 * hands.threads)
    made = grain.MapDataset.range(len(source)).map(read)
    for i, image, decoded in made.to_iter_dataset(options):
        if image is not None:
            yield image, decoded, i
