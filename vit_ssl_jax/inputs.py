"""From a config to a run's training data: no devices, no files of its own."""

import jax
import numpy as np

from vit_ssl_jax import processes
from vit_ssl_jax.data import augment, given, pipeline, sources
from vit_ssl_jax.errors import UserError


def make_opener(config, data=None):
    """What opens the run's data: `sources.open_source`, or `data` from Python.

    `data` is then what the config names: `config.data.name` becomes "given". Raises
    UserError for data of a form that isn't known, and where it has to be given again.
    """
    if data is not None:
        config.data.name, config.data.dir = given.NAME, ""
        return given.make_opener(data, config.data.num_classes)
    if config.data.name == given.NAME:
        raise UserError(
            f"config.data.name: {given.NAME!r} is data from Python; give it again: "
            "train(config, workdir, data=...)"
        )
    return sources.open_source


def open_data(config, open_source=None):
    """Opens the training data: `(source, line)`.

    Its own counts replace the config's, and the line says so. `open_source` is that of
    `make_opener`. Raises UserError for what the data lacks, and for an augmentation
    that can't be.
    """
    data = config.data
    augment.make_augmentation(**augmentation(data))
    open_source = open_source or sources.open_source
    source = open_source(
        data.name, data.dir, data.split, labels=data.labels, label=data.label
    )
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
    return source, line


def augmentation(data):
    """Of `config.data` what is done to a training image on the host."""
    tuples = ("size", "crop", "ratio", "mean")
    plain = ("pad", "flip", "randaugment", "interpolation", "resize", "squash")
    return {
        **{key: tuple(data[key]) for key in tuples},
        **{key: data[key] for key in (*plain, "train_resize")},
    }


def open_run(config, data=None):
    """What `make_opener` and `open_data` find: `(open_source, source, line)`.

    On all processes, or on none: raises UserError where one can't open it.
    """
    with processes.together():
        open_source = make_opener(config, data)
        return open_source, *open_data(config, open_source)


def open_batches(config, source, start):
    """This process's training batches from step `start` on.

    Raises UserError for an image without a label where the method learns from labels.
    """
    batches = pipeline.train_batches(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        shard=(jax.process_index(), jax.process_count()),
        threads=config.data.threads or None,
        **augmentation(config.data),
    )
    method = config.method
    if method.name == "supervised" or method.get("labels"):
        return map(check_labels, batches)
    return batches


def check_labels(batch):
    """The batch; raises UserError where an image in it has no label."""
    if (missing := batch["label"] < 0).any():
        raise UserError(
            f"image {batch['id'][missing][0]} of config.data.split has no label (-1), "
            "and the method learns from labels; name a split with labels"
        )
    return batch
