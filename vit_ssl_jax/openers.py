"""What opens a run's sets: by their names, from Python, or several as a mixture."""

import dataclasses

from vit_ssl_jax import evaluators
from vit_ssl_jax.data import from_python, layout, mixture, sources
from vit_ssl_jax.data.source import parse_split
from vit_ssl_jax.errors import UserError


def make_opener(config, data=None):
    """What opens the run's data: `sources.open_source`, or `data` from Python.

    `data` is then what the config names: `config.data.name` becomes "given". What
    config.data says of files is told to the run's own data, not to other sets; so is its
    list of names, for the splits of config.data.split: evaluators that learn from them
    have no other images, and those of other splits are whole. Without a test split and a
    list a folder holds a tenth out where an evaluator asks for one. Raises UserError for
    data of a form that isn't known, and where it has to be given again.
    """
    alpha = config.data.get("alpha", "white")
    if data is not None:
        if config.data.get("list", ""):
            raise UserError(
                "config.data.list: data from Python has no file names; give the images "
                "that are wanted, or set list=''"
            )
        config.data.name, config.data.dir = from_python.NAME, ""
        return from_python.make_opener(data, config.data.num_classes, alpha)
    if config.data.name == from_python.NAME:
        raise UserError(
            f"config.data.name: {from_python.NAME!r} is data from Python; give it again: "
            "train(config, workdir, data=...)"
        )
    own = config.data.name, config.data.dir
    listed = config.data.get("list", "")
    reading = dict(alpha=alpha, labels_file=config.data.get("labels_file", ""))
    if config.data.name in sources.FILES:
        reading["extra_classes"] = config.data.get("extra_classes", "error")
        reading["hold_out"] = not listed and holds_out(config, reading)
    if listed:
        reading["lists"] = lists_of(listed, config.data.split)

    def open_source(name, directory, split, **kinds):
        told = reading if (name, directory) == own else {}
        opened = sources.open_source(name, directory, split, **kinds, **told)
        return bounded(opened, config.data)

    return open_source


def bounded(source, data):
    """The source with what config.data says of large images and of lost ones."""
    keys = "max_pixels", "retry_seconds"
    return dataclasses.replace(source, **{k: data[k] for k in keys if k in data})


def lists_of(path, split):
    """The list of names at `path` for the one split that is named: `{split: path}`.

    Raises UserError for several.
    """
    names = {parse_split(part.strip())[0] for part in split.split("+")}
    if len(names) > 1:
        raise UserError(
            f"config.data.list: {path} is for one split, but {split!r} is of "
            f"{', '.join(sorted(names))}; name one of them"
        )
    return dict.fromkeys(names, path)


def holds_out(config, reading):
    """Whether an evaluator that can work asks a folder for a test or validation split.

    `reading` is what `sources.open_source` is told of the folder.
    """
    if asks_for_others(config, labelled=False):
        return True
    if not (config.data.labels and asks_for_others(config, labelled=True)):
        return False
    data = config.data
    return (
        sources.open_source(data.name, data.dir, data.split, **reading).num_classes > 0
    )


def asks_for_others(config, *, labelled):
    """Whether an evaluator that is on takes a test or validation split of the run's data.

    Without `labelled`, one that needs no labels.
    """
    for name, settings in config.get("evals", {}).items():
        if settings.get("every_epochs", 0) < 0 or settings.get("set"):
            continue
        c = evaluators.read_config(name, settings)
        wants = evaluators.find(name).wants(c)
        if wants.labels and not labelled:
            continue
        if asks_for_test(getattr(c, key) for key in wants.splits):
            return True
    return False


def asks_for_test(splits):
    """Whether any of some splits is a test or validation split, or a part of one."""
    parts = [part.strip() for split in splits for part in split.split("+")]
    names = [parse_split(part)[0] for part in parts if part]
    return bool({"validation", "test"} & set(map(layout.meaning_of, names)))


def add_others(source, data, open_source):
    """The source with the other sets of `config.data.mix` mixed in.

    They are `(name, dir, split, weight)`, the source's own weight is 1. Raises UserError
    for a set that doesn't fit.
    """
    others = data.get("mix", ())
    if not others:
        return source
    if data.name == from_python.NAME:
        raise UserError(
            "config.data.mix: data from Python isn't mixed with sets; put the images "
            "together there, or set mix=()"
        )
    sets, weights = [source], [1.0]
    for other in others:
        if len(other) != 4:
            raise UserError(
                f"config.data.mix: {other!r} isn't ('name', 'dir', 'split', weight)"
            )
        *where, weight = other
        sets.append(open_source(*where, labels=data.labels))
        weights.append(float(weight))
    mixed = mixture.mix(sets, weights)
    told = [
        f"{100 * weight / sum(weights):.4g} % from {one.name}"
        for one, weight in zip(sets, weights, strict=True)
    ]
    note = f"a mixture of {len(sets)} sets, in training " + ", ".join(told)
    return dataclasses.replace(mixed, notes=(*mixed.notes, note))
