"""From a config to a run's training data: no devices, no files of its own."""

import contextlib
import json
import math

import jax
import numpy as np

from vit_ssl_jax import memory, openers, own, recipes
from vit_ssl_jax.data import (
    augment,
    card,
    pipeline,
)
from vit_ssl_jax.data import memory as in_memory
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir.files import read_dict
from vit_ssl_jax.workdir.folder import replace


def open_data(config, open_source=None):
    """Opens the training data: `(source, lines to say)`.

    Its own counts replace the config's, and a line says so. `open_source` is that of
    `make_opener`. Raises UserError for what the data lacks, and for an augmentation
    that can't be.
    """
    data = config.data
    recipes.fill(config, {})  # where nothing was inherited
    augment.make_augmentation(**augmentation(data))
    open_source = open_source or openers.make_opener(config)
    source = open_source(
        data.name, data.dir, data.split, labels=data.labels, label=data.label
    )
    source = openers.bounded(openers.add_others(source, data, open_source), data)
    if np.ndim(source.no_label):
        raise UserError(
            f"config.data.label: {data.label!r} gives an image a set of classes, and "
            "training needs one class; name another label"
        )
    line = f"data: {data.name}, split {data.split}: {len(source):,} images"
    if source.num_classes:
        line += f" in {source.num_classes} classes"
    else:
        line += " without labels"
    if (len(source), source.num_classes) != (data.num_examples, data.num_classes):
        line += (
            f" (the config says {data.num_examples:,} in {data.num_classes}; "
            "the data's own counts are used)"
        )
    data.num_examples, data.num_classes = len(source), source.num_classes
    lines = [line, *(f"data: {note}" for note in source.notes)]
    lines += choose_own(config)
    if config.batch_size > len(source):
        less = own.batch_size(len(source), config.batch_size)
        raise UserError(
            f"config.batch_size: {config.batch_size} is more than the {len(source):,} "
            f"images of {source.name}; --config.batch_size={less} is a value that works"
        )
    return source, lines


def keep_decoded(config, source):
    """The source, its images kept once decoded where all fit: `(source, lines)`.

    Only for own images are they shrunk for that, to what the smallest crop needs.
    """
    data, side = config.data, 0
    if "own" in config and data.crop:
        side = math.ceil(max(augment.train_size(data)) / math.sqrt(data.crop[0]))
    source, line = in_memory.keep_decoded(source, data.get("cache_gib", 0.0), side)
    return source, [line] if line else []


def choose_own(config):
    """Fills in what a config of own images leaves open, by the devices at hand."""
    if "own" not in config:
        return []
    device = jax.local_devices()[0]
    return own.choose(
        config,
        config.data.num_examples,
        own.class_of(device.platform, memory.of_device(device)),
    )


def make_card(config, source):
    """The data card and lines to say of it; `(None, [])` on all processes but one."""
    if jax.process_index():
        return None, []
    made = card.make_card(source, config.data)
    return made, card.describe(made)


def write_card(made, workdir):
    """Writes data.json; a line where a run goes on with other images than before."""
    if made is None:
        return []
    file = workdir / "data.json"
    before = (read_dict(file) or {}).get("fingerprint", "")
    replace(file, json.dumps(made, indent=2) + "\n")
    if before in ("", made["fingerprint"]):
        return []
    return ["the images: names, sizes or times of files, see data.json"]


def augmentation(data):
    """Picks what `config.data` has done to a training image on the host."""
    tuples = ("crop", "ratio", "mean")
    plain = ("pad", "flip", "randaugment", "interpolation", "resize", "squash")
    return {
        "pixels": data.get("pixels", "pillow"),
        **{key: tuple(data[key]) for key in tuples},
        "size": augment.train_size(data),
        **{key: data[key] for key in (*plain, "train_resize")},
    }


def open_run(config, data=None):
    """What `make_opener` and `open_data` find: `(open_source, source, lines)`.

    On all processes, or on none: raises UserError where one can't open it.
    """
    with processes.together():
        open_source = openers.make_opener(config, data)
        return open_source, *open_data(config, open_source)


def keep_pixels(config, workdir):
    """Makes a run go on with the draws and the pixels that it began with; lines.

    `workdir`'s config.json tells them; runs of before there was a choice have the first.
    """
    begun = (read_dict(workdir / "config.json") or {}).get("data")
    begun, lines = begun if isinstance(begun, dict) else None, []
    for key, first in (("stream", 1), ("pixels", "pillow"), ("device_cache", False)):
        value = begun.get(key, first) if begun else None
        if begun and config.data.get(key, first) != value:
            config.data[key] = value
            lines.append(f"data: config.data.{key} is {value!r}, as this run began")
    return lines


def open_batches(config, source, start, method=None):
    """This process's training batches from step `start` on.

    It has `close()`. Raises UserError for an image without a label where `method` needs
    labels.
    """
    batches = pipeline.train_batches(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        shard=(jax.process_index(), jax.process_count()),
        processes=None if (count := config.data.get("workers", -1)) < 0 else count,
        threads=config.data.threads or None,
        stream=config.data.get("stream", 1),
        max_broken=config.data.get("max_broken", 1.0),
        **augmentation(config.data),
    )
    return labelled(batches) if method and method.needs_labels else batches


def labelled(batches):
    """Yields the batches; raises UserError for an image without a label."""
    with contextlib.closing(batches):
        for batch in batches:
            check_labels(batch["label"], batch["id"])
            yield batch


def check_labels(label, ids):
    """Raises UserError for an image without a label: int `[n]`, and their numbers."""
    if (missing := label < 0).any():
        raise UserError(
            f"image {ids[missing][0]} of config.data.split has no label (-1), and the "
            "method learns from labels; name a split with labels"
        )
