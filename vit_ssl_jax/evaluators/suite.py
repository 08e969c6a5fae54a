"""The evaluators of a config: when each is due, and on which images."""

import functools

from vit_ssl_jax.data import pipeline, sources
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import features, knn, linear, pretext

EVALUATORS = {"knn": knn.evaluate, "linear": linear.evaluate}  # of features
PRETEXT = "pretext"  # of the method


class Suite:
    """The evaluators that a config asks for and its data allows."""

    def __init__(self, config, run, labelled, say):
        """Opens the splits; says with a line which evaluator is off and why."""
        self._data, self._run = config.data, run
        self._pretext = pretext.make_evaluator(run.method, run.mesh)
        self._extract = features.make_extractor(run.encoder, run.mesh, run.normalize)
        ways = run.mesh.shape["data"] * run.mesh.shape["fsdp"]
        self._batch_size = -(-config.data.eval_batch_size // ways) * ways
        self._sources, self._settings, self._every = {}, {}, {}
        self._known = (None, {})  # step and results of the newest evaluation
        for name, settings in config.evals.items():
            if name not in (*EVALUATORS, PRETEXT):
                raise UserError(
                    f"config.evals: there is no evaluator {name!r}; known are "
                    f"{', '.join((*EVALUATORS, PRETEXT))}"
                )
            if settings.every_epochs < 0:
                continue
            why = "the data has no labels"
            if labelled or name == PRETEXT:
                why = self._open(settings)
            if why:
                say(f"evaluator {name} is off: {why}")
                continue
            if "k" in settings and max(settings.k) > len(self._sources[settings.bank]):
                raise UserError(
                    f"config.evals.{name}.k: {max(settings.k)} neighbours of "
                    f"{len(self._sources[settings.bank])} bank images ({settings.bank})"
                )
            self._settings[name] = settings.to_dict()
            self._every[name] = round(settings.every_epochs * run.steps_per_epoch)

    def _open(self, settings):
        """Opens the splits of an evaluator; what is wrong with them, or None."""
        for key in ("bank", "queries", "split"):
            split = settings.get(key)
            if split is None or split in self._sources:
                continue
            try:
                source = sources.open_source(self._data.name, self._data.dir, split)
            except UserError as error:
                return f"{error} (config.evals.*.{key} names the split)"
            self._sources[split] = source
        return None

    @property
    def names(self):
        """Names of the evaluators that are on."""
        return list(self._settings)

    def due(self, done, last):
        """Names of the evaluators due after step `done`."""
        return [n for n, e in self._every.items() if last or (e and done % e == 0)]

    def batches(self, split):
        """Evaluation batches of a split."""
        return pipeline.eval_batches(
            self._sources[split],
            batch_size=self._batch_size,
            size=tuple(self._data.size),
            resize=self._data.resize,
            interpolation=self._data.interpolation,
        )

    def evaluate(self, state, names=None):
        """Runs evaluators on a state: `{eval/...: float}`.

        What was just evaluated at the same step isn't evaluated again.
        """
        names, step = self.names if names is None else names, int(state.step)
        known = self._known[1] if self._known[0] == step else {}
        params = self._run.encoder_params(state)

        @functools.cache
        def extract(split, pool):
            return self._extract(params, self.batches(split), pool)

        for name in [n for n in names if n not in known]:
            if name == PRETEXT:
                split = self._settings[name]["split"]
                known[name] = self._pretext(state, self.batches(split))
            else:
                known[name] = self._probe(name, extract)
        self._known = (step, known)
        return self._named({name: known[name] for name in names})

    def evaluate_pixels(self):
        """The same of raw pixels."""
        pixels = functools.cache(lambda split: features.pixels(self.batches(split)))
        names = [name for name in self.names if name != PRETEXT]
        return self._named(
            {n: self._probe(n, lambda split, pool: pixels(split)) for n in names}
        )

    def _probe(self, name, extract):
        s = dict(self._settings[name])
        del s["every_epochs"]
        pool = s.pop("pool")
        bank, queries = (extract(s.pop(key), pool) for key in ("bank", "queries"))
        return EVALUATORS[name](bank, queries, **s)

    @staticmethod
    def _named(results):
        return {
            f"eval/{name}/{key}": value
            for name, values in results.items()
            for key, value in values.items()
        }
