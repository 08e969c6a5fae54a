"""The splits that evaluators read, and their batches."""

import jax

from vit_ssl_jax.data import pipeline, sources
from vit_ssl_jax.signals import Stopped


class Splits:
    """Sources by what they are: (set, folder, label, split), each opened once."""

    def __init__(self, data, batch_size, asked, open_source=None):
        """`data` is `config.data`; `batch_size` that of evaluation."""
        self._open_source = open_source or sources.open_source
        self._data, self._batch_size, self._sources = data, batch_size, {}
        self._asked = asked

    def what(self, settings, key):
        """What `settings[key]` names: a split of the data, or of `settings["set"]`."""
        data = self._data
        if settings.get("set"):
            return settings["set"], settings["dir"], settings["label"], settings[key]
        return data.name, data.dir, data.label, settings[key]

    def open(self, what):
        """The source; raises UserError where there is none."""
        if what not in self._sources:
            name, folder, label, split = what
            source = self._open_source(name, folder, split, label=label)
            self._sources[what] = source
        return self._sources[what]

    def plain(self, what):
        """Evaluation batches, once over the split.

        Raises `signals.Stopped` once that is asked for.
        """
        data = self._data
        for batch in pipeline.eval_batches(
            self.open(what),
            batch_size=self._batch_size,
            size=tuple(data.size),
            resize=data.resize,
            squash=data.squash,
            interpolation=data.interpolation,
        ):
            if self._asked:
                raise Stopped
            yield batch

    def describe(self, what, settings):
        """What a probe learns from, for a record: which images, and how they are cut."""
        keys = ("crop", "ratio", "single_draw", "flip")
        cut = {key: settings[key] for key in keys}
        keys = ("size", "resize", "squash", "interpolation")
        whole = {key: self._data[key] for key in keys}
        return {"images": list(what), "number": len(self.open(what)), **cut, **whole}

    def augmented(self, what, settings, start):
        """Training batches of a probe from step `start` on."""
        data = self._data
        return pipeline.train_batches(
            self.open(what),
            batch_size=settings["batch_size"],
            size=tuple(data.size),
            crop=tuple(settings["crop"]),
            ratio=tuple(settings["ratio"]),
            single_draw=settings["single_draw"],
            flip=settings["flip"],
            interpolation=data.interpolation,
            resize=data.resize,
            squash=data.squash,
            seed=settings["seed"],
            start_step=start,
            shard=(jax.process_index(), jax.process_count()),
        )
