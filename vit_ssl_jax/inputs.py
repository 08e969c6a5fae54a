"""From a config to a run's training data: no devices, no files of its own."""

import jax

from vit_ssl_jax.data import pipeline, sources


def open_data(config):
    """Opens the training data: `(source, line)`.

    Its own counts replace the config's, and the line says so.
    """
    data = config.data
    source = sources.open_source(
        data.name, data.dir, data.split, labels=data.labels, label=data.label
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


def open_batches(config, source, start):
    """This process's training batches from step `start` on."""
    data = config.data
    return pipeline.train_batches(
        source,
        batch_size=config.batch_size,
        size=tuple(data.size),
        pad=data.pad,
        crop=tuple(data.crop),
        ratio=tuple(data.ratio),
        flip=data.flip,
        randaugment=data.randaugment,
        mean=tuple(data.mean),
        interpolation=data.interpolation,
        resize=data.resize,
        squash=data.squash,
        train_resize=data.train_resize,
        seed=config.seed,
        start_step=start,
        shard=(jax.process_index(), jax.process_count()),
        threads=data.threads or None,
    )
