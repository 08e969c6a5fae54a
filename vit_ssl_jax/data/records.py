"""Writes examples as TensorFlow Datasets does, without TensorFlow: ArrayRecord shards.

`prepared` reads them. A record is a `tf.train.Example` in protobuf's wire format.
"""

import json
import os
import pathlib

from vit_ssl_jax.data import prepared

VERSION = "1.0.0"
BYTES_LIST, INT64_LIST = 1, 3  # fields of tf.train.Feature


def example(features: dict[str, bytes | int]) -> bytes:
    """A `tf.train.Example` of single values."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(BYTES_LIST, field(1, value))
        else:
            feature = field(INT64_LIST, field(1, varint(value)))  # packed
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def field(number: int, content: bytes) -> bytes:
    """A field of a length: its tag, its length and itself."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number, 7 bits a byte; negative ones as 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """The file of a shard, as TFDS calls it."""
    return f"{name}-{split}.{prepared.FORMAT}-{number:05}-of-{count:05}"


def write(path: pathlib.Path, examples) -> None:
    """Writes a shard whole or not at all."""
    from array_record.python import array_record_module  # Linux alone has it

    part = path.with_name(f".{path.name}.part")
    writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
    try:
        for record in examples:
            writer.write(record)
    finally:
        writer.close()
    os.replace(part, path)


def write_info(folder, name, splits, class_names, description) -> None:
    """Writes what tells a reader of the shards, and makes the set complete.

    splits: `{name: [(records, bytes) of each shard]}`.
    """
    features = {
        "id": kind("text_feature.Text") | {"text": {}},
        "image": kind("image_feature.Image")
        | {"image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}},
    }
    if class_names:
        features["label"] = kind("class_label_feature.ClassLabel") | {
            "classLabel": {"numClasses": str(len(class_names))}
        }
        (folder / "label.labels.txt").write_text("\n".join(class_names) + "\n")
    whole = kind("features_dict.FeaturesDict") | {
        "featuresDict": {"features": features}
    }
    (folder / "features.json").write_text(json.dumps(whole, indent=2) + "\n")
    info = {
        "name": name,
        "version": VERSION,
        "description": description,
        "fileFormat": prepared.FORMAT,
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(sum(size for _, size in shards)),
                "shardLengths": [str(records) for records, _ in shards],
            }
            for split, shards in splits.items()
        ],
    }
    text = json.dumps(info, indent=2) + "\n"
    part = folder / f".{prepared.INFO}.part"
    part.write_text(text)
    os.replace(part, folder / prepared.INFO)


def kind(name: str) -> dict:
    """The class of TFDS that reads a feature."""
    return {"pythonClassName": f"tensorflow_datasets.core.features.{name}"}
