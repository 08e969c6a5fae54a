"""The splits that evaluators read, and their batches."""

from vit_ssl_jax.data import pairs, pipeline, sources
from vit_ssl_jax.distributed.signals import Stopped
from vit_ssl_jax.evaluators import sharing

WHOLE = ("size", "resize", "squash", "interpolation")  # of `config.data`: plain images


class Splits:
    """Sources by what they are: (set, folder, label, split), each opened once."""

    def __init__(self, data, batch_size, mesh, stop_requested, open_source=None):
        """`data` is `config.data`; `batch_size` that of evaluation, over the mesh."""
        self._mesh = mesh
        self._open_source = open_source or sources.open_source
        self._batch_size, self._sources = batch_size, {}
        self._stop_requested = stop_requested
        self._own = data.name, data.dir, data.label
        self._whole = {key: data[key] for key in WHOLE}
        self._whole["size"] = tuple(data.size)

    def identify(self, settings, key):
        """The split that `settings[key]` names, of the data or of `settings["set"]`."""
        if settings.get("set"):
            own = settings["set"], settings["dir"], settings["label"]
            return *own, settings[key]
        return *self._own, settings[key]

    def open(self, split, maps=False):
        """The source of a split, of `pairs` with `maps`; UserError where there is none."""
        if (split, maps) not in self._sources:
            name, folder, label, part = split
            opener = pairs.open_pairs if maps else self._open_source
            self._sources[split, maps] = opener(name, folder, part, label=label)
        return self._sources[split, maps]

    def plain(self, split):
        """Evaluation batches, once over the split: their rows of this process.

        Raises `signals.Stopped` once that is asked for.
        """
        for batch in pipeline.eval_batches(
            self.open(split),
            batch_size=self._batch_size,
            rows=sharing.rows_of(self._batch_size, self._mesh),
            **self._whole,
        ):
            if self._stop_requested:
                raise Stopped
            yield batch

    def record(self, split, maps=False):
        """Which images they are and how they are resized, for a record."""
        number = len(self.open(split, maps))
        return {"images": list(split), "number": number, **self._whole}

    def augmented(self, split, start, **cut):
        """Training batches from step `start` on, cut as `pipeline.train_batches` says.

        Their rows of this process.
        """
        rows = sharing.rows_of(cut["batch_size"], self._mesh)
        return pipeline.train_batches(
            self.open(split),
            **{"rows": rows, "start_step": start, **self._whole, **cut},
        )
