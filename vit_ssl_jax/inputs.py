"""From a config to a run's training data: no devices, no files of its own."""

import jax
import numpy as np

from vit_ssl_jax.data import augment, pipeline, sources
from vit_ssl_jax.errors import UserError


def open_data(config):
    """Opens the training data: `(source, line)`.

    Its own counts replace the config's, and the line says so. Raises UserError for what
    it lacks, and for an augmentation that can't be.
    """
    data = config.data
    augment.make_augmentation(**augmentation(data))
    source = sources.open_source(
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
