"""The evaluators that a config asks for: when each is due, on which images."""

import functools

from vit_ssl_jax import evaluators, partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import features, pretext, splits


class Suite:
    """Evaluators and the images that they see."""

    def __init__(
        self,
        config,
        run,
        *,
        labelled,
        say,
        folder=None,
        stop_requested=(),
        open_source=None,
        strict=False,
    ):
        """Opens the splits; says with a line which evaluator is off and why.

        `config` has `data` and `evals`, `run` is a `build.Run`. Without labels
        (`labelled` False) those that need them are off. An evaluator that saves itself
        does so in `folder`, where that is given. Once `stop_requested` is true an
        evaluation ends with `signals.Stopped`. `open_source` is that of `data.sources`,
        or of a run whose data was given. Raises UserError for settings that can't work;
        with `strict` also where images are not made for an evaluator.
        """
        self._run, self._say = run, say
        self._folder, self._stop_requested = folder, stop_requested
        self._strict = strict
        self._extract = features.make_extractor(run.encoder, run.mesh, run.normalize)
        data = config.data
        size = self._batch_size = partition.fill_ways(data.eval_batch_size, run.mesh)
        self._splits = splits.Splits(data, size, run.mesh, stop_requested, open_source)
        self._evaluate, self._wants, self._split, self._every = {}, {}, {}, {}
        self._known = (None, {})  # step and results of the newest evaluation
        for name, settings in config.evals.to_dict().items():
            module, c = evaluators.find(name), evaluators.read_config(name, settings)
            every = settings.get("every_epochs", 0.0)
            if every < 0:
                continue
            wants = self._wants[name] = module.wants(c)
            self._split[name] = functools.partial(self._splits.identify, settings)
            why = "the data has no labels"
            if labelled or not wants.labels:
                why = self._open(name, wants.splits, labelled)
            why = why or self._check(name, module, c)
            if why:
                if "every_epochs" in settings:
                    why += f" (--config.evals.{name}.every_epochs=-1: never)"
                say(f"evaluator {name} is off: {why}")
                continue
            self._evaluate[name] = module.make(c, run)
            self._every[name] = round(every * run.steps_per_epoch) if every else 0

    def _open(self, name, keys, labelled):
        """Opens the splits of an evaluator; what is wrong with them, or "".

        What was left out of them is said of labelled data: of others training said it.
        """
        for key in keys:
            if not self._split[name](key)[-1]:
                continue  # `check` says what that means
            try:
                for note in self._source(name, key).notes * labelled:
                    self._say(f"data: {note}")
            except UserError as error:
                return f"{error} (config.evals.{name}.{key} names the split)"
        return ""

    def _check(self, name, module, c):
        """What the images of an evaluator lack, or ""; UserError for its settings."""
        try:
            module.check(c, self._run, functools.partial(self._source, name))
        except UserError as error:
            key = str(error).partition(":")[0]
            gap = "." if key in vars(c) else ": "
            text = f"config.evals.{name}{gap}{error}"
            if isinstance(error, evaluators.Unfit) and not self._strict:
                return text
            raise UserError(text) from error
        self._check_batches(name)
        return ""

    def _check_batches(self, name):
        """Raises UserError where a loss of whole batches has images for none."""
        wants, ways = self._wants[name], partition.ways(self._run.mesh)
        if not (wants.model and self._run.method.batch_loss):
            return
        for key in wants.plain:
            images = len(self._source(name, key))
            if images < self._batch_size:
                raise UserError(pretext.refuse(self._batch_size, images, ways))

    def _source(self, name, key):
        return self._splits.open(self._split[name](key), self._wants[name].maps)

    @property
    def names(self):
        """Names of the evaluators that are on."""
        return list(self._evaluate)

    def due(self, done, last):
        """Names of the evaluators due after step `done`."""
        return [n for n, e in self._every.items() if last or (e and done % e == 0)]

    def evaluate(self, state, names=None):
        """Runs evaluators on a state: `{eval/...: float}`.

        What was just evaluated at the same step isn't evaluated again. Images of a
        split go through the encoder once for all evaluators.
        """
        names, done = self.names if names is None else names, int(state.step)
        known = self._known[1] if self._known[0] == done else {}
        new = [name for name in names if name not in known]
        params = self._run.encoder_params(state)

        def read(split, readouts):
            return self._extract(params, self._splits.plain(split), readouts)

        self._judge(known, new, state, read)
        self._known = (done, known)
        return _named({name: known[name] for name in names})

    def evaluate_pixels(self):
        """Runs the evaluators that take raw pixels on those: `{eval/...: float}`."""
        names, known = [n for n in self.names if self._wants[n].pixels], {}

        def read(split, readouts):
            batches = self._splits.plain(split)
            pixels, labels = features.pixels(batches, self._run.mesh)
            return dict.fromkeys(readouts, pixels), labels

        self._judge(known, names, None, read)
        return _named(known)

    def evaluate_baselines(self, untrained):
        """Results of an untrained state and of raw pixels: `{eval/ROW/...: float}`."""
        rows = dict(
            untrained=self.evaluate(untrained), raw_pixels=self.evaluate_pixels()
        )
        return {
            f"eval/{row}/{key.removeprefix('eval/')}": value
            for row, results in rows.items()
            for key, value in results.items()
        }

    def _judge(self, known, names, state, read):
        """Adds to `known` what evaluators say; `read(split, readouts)` has features."""
        wanted, kept = {}, {}
        for name in names:
            for key, readouts in self._wants[name].features.items():
                needed = wanted.setdefault(self._split[name](key), {})
                needed.update(dict.fromkeys(readouts))

        def features_of(split):
            if split not in kept:
                kept[split] = read(split, tuple(wanted[split]))
            return kept[split]

        for name in names:
            known[name] = self._evaluate[name](state, self._inputs(name, features_of))

    def _inputs(self, name, features_of):
        split, splits, maps = self._split[name], self._splits, self._wants[name].maps
        return evaluators.Inputs(
            features=lambda key: features_of(split(key)),
            plain=lambda key: splits.plain(split(key)),
            augmented=lambda key, start, **cut: splits.augmented(
                split(key), start, **cut
            ),
            source=lambda key: splits.open(split(key), maps),
            record=lambda key: splits.record(split(key), maps),
            folder=self._folder / name if self._folder else None,
            stop_requested=self._stop_requested,
            say=self._say,
        )


def _named(results):
    return {
        f"eval/{name}/{key}": value
        for name, values in results.items()
        for key, value in values.items()
    }
