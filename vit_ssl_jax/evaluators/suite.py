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
            if "k" in settings and settings.k > len(self._sources[settings.bank]):
                raise UserError(
                    f"config.evals.{name}.k: {settings.k} neighbours of "
                    f"{len(self._sources[settings.bank])} bank images ({settings.bank})"
                )
            self._settings[name] = settings.to_dict()
            self._every[name] = round(settings.every_epochs * run.steps_per_epoch)

    def _open(self, settings):
        """Opens the splits of an evaluator; what is wrong with them, or None."""
        for key in {"bank", "queries", "split"} & set(settings):
            split = settings[key]
            if split in self._sources:
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

    def evaluate(self, state, names=None, pixels=False):
        """Runs evaluators on a state, or on raw pixels: `{eval/...: float}`."""
        params = None if pixels else self._run.encoder_params(state)

        @functools.cache
        def read(split, pool):
            if pixels:
                return features.pixels(self.batches(split))
            return self._extract(params, self.batches(split), pool)

        out = {}
        for name in self._settings if names is None else names:
            s = dict(self._settings[name])
            s.pop("every_epochs")
            if name == PRETEXT:
                if pixels:
                    continue
                results = self._pretext(state, self.batches(s["split"]))
            else:
                pool = None if pixels else s["pool"]
                bank, queries = read(s.pop("bank"), pool), read(s.pop("queries"), pool)
                s.pop("pool")
                results = EVALUATORS[name](bank, queries, **s)
            out |= {f"eval/{name}/{key}": value for key, value in results.items()}
        return out
