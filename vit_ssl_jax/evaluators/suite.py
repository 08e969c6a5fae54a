"""The evaluators that a config asks for: when each is due, and on which images."""

import functools

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import (
    classify,
    features,
    feeds,
    fewshot,
    fits,
    heads,
    knn,
    linear,
    pretext,
    probe,
    splits,
)
from vit_ssl_jax.signals import Stopped

# Of features of a bank and of queries; the others need more than that.
OF_FEATURES = {
    "knn": knn.evaluate,
    "fewshot": fewshot.evaluate,
    "linear": linear.evaluate,
}
KINDS = (*OF_FEATURES, "probe", "classify", "pretext")
SPLITS = ("bank", "select", "queries", "split")
MEAN = "mean_per_class"


def kind(name):
    """What an evaluator is: its name up to an underscore ("classify_v2")."""
    return name.partition("_")[0]


def readouts_of(settings):
    """The readouts that an evaluator of features works on."""
    if "readouts" in settings:
        return [(int(count), how) for count, how in settings["readouts"]]
    return [(1, settings["pool"])]


def rename(key, how):
    """`k20_T0.07/top1` with the features that it was had from: `k20_T0.07_mean/top1`."""
    head, metric = key.rsplit("/", 1)
    return head + how, metric


class Suite:
    """Evaluators and the images that they see."""

    def __init__(
        self, config, run, labelled, say, *, folder=None, asked=(), open_source=None
    ):
        """Opens the splits; says with a line which evaluator is off and why.

        `config` has `data` and `evals`, `run` is a `build.Run`. Without labels
        (`labelled` False) only `pretext` is on. A probe that goes through the encoder
        saves itself in `folder`, where that is given. Once `asked` is true a probe that
        trains stops, and an evaluation ends with `signals.Stopped`. `open_source` is
        that of `data.sources`, or of a run whose data was given.
        """
        self._run, self._say = run, say
        self._folder, self._asked = folder, asked
        self._pretext = pretext.make_evaluator(run.method, run.mesh)
        self._classify = classify.make_evaluator(run.method, run.mesh, run.normalize)
        self._extract = features.make_extractor(run.encoder, run.mesh, run.normalize)
        ways = partition.ways(run.mesh)
        batch_size = -(-config.data.eval_batch_size // ways) * ways
        self._splits = splits.Splits(config.data, batch_size, asked, open_source)
        self._settings, self._every = {}, {}
        self._known = (None, {})  # step and results of the newest evaluation
        for name, settings in config.evals.items():
            if kind(name) not in KINDS:
                raise UserError(
                    f"config.evals: there is no evaluator {name!r}; known are "
                    f"{', '.join(KINDS)}"
                )
            if settings.every_epochs < 0:
                continue
            why = "the data has no labels"
            if labelled or kind(name) == "pretext":
                why = self._open(name, settings)
            if why:
                say(f"evaluator {name} is off: {why}")
                continue
            where = f"config.evals.{name}"
            open_split = functools.partial(self._source, settings)
            fits.check(kind(name), where, settings, run, open_split)
            self._settings[name] = settings.to_dict()
            self._every[name] = round(settings.every_epochs * run.steps_per_epoch)

    def _open(self, name, settings):
        """Opens the splits of an evaluator; what is wrong with them, or None."""
        for key in SPLITS:
            if not settings.get(key):
                continue
            try:
                self._source(settings, key)
            except UserError as error:
                return f"{error} (config.evals.{name}.{key} names the split)"
        return None

    def _source(self, settings, key):
        return self._splits.open(self._splits.what(settings, key))

    @property
    def names(self):
        """Names of the evaluators that are on."""
        return list(self._settings)

    def due(self, done, last):
        """Names of the evaluators due after step `done`."""
        return [n for n, e in self._every.items() if last or (e and done % e == 0)]

    def _batches(self, settings):
        return self._splits.plain(self._splits.what(settings, "split"))

    def evaluate(self, state, names=None):
        """Runs evaluators on a state: `{eval/...: float}`.

        What was just evaluated at the same step isn't evaluated again. Images of a
        split go through the encoder once for all evaluators.
        """
        names, done = self.names if names is None else names, int(state.step)
        known = self._known[1] if self._known[0] == done else {}
        new = [name for name in names if name not in known]
        params = self._run.encoder_params(state)

        def read(what, wanted):
            return self._extract(params, self._splits.plain(what), wanted)

        features_of = self._reader(new, read)
        for name in new:
            settings = self._settings[name]
            if kind(name) == "pretext":
                known[name] = self._pretext(state, self._batches(settings))
            elif kind(name) == "classify":
                label_map = settings["label_map"]
                batches = self._batches(settings)
                found = self._classify(state, batches, label_map)
                if settings["metric"] != MEAN:
                    found = {k: v for k, v in found.items() if not k.endswith(MEAN)}
                known[name] = found
            elif kind(name) == "probe":
                known[name] = self._probe(name, params, features_of)
            else:
                known[name] = self._judge(name, features_of)
        self._known = (done, known)
        return self._named({name: known[name] for name in names})

    def evaluate_pixels(self):
        """The same of raw pixels, by the evaluators of features."""
        names = [name for name in self.names if kind(name) in OF_FEATURES]

        def read(what, wanted):
            pixels, labels = features.pixels(self._splits.plain(what))
            return dict.fromkeys(wanted, pixels), labels

        features_of = self._reader(names, read)
        return self._named({n: self._judge(n, features_of) for n in names})

    def _reader(self, names, read):
        """`features_of(name, key) -> ({readout: [M F]}, labels)`, each split read once."""
        wanted, kept = {}, {}
        for name in names:
            for key in SPLITS[:3]:
                settings = self._settings[name]
                if settings.get(key) and self._needs(name, key):
                    readouts = dict.fromkeys(readouts_of(settings))
                    what = self._splits.what(settings, key)
                    wanted.setdefault(what, {}).update(readouts)

        def features_of(name, key):
            what = self._splits.what(self._settings[name], key)
            if what not in kept:
                kept[what] = read(what, tuple(wanted[what]))
            return kept[what]

        return features_of

    def _needs(self, name, key):
        """Whether an evaluator wants the features of a split of plain images."""
        augmented = self._settings[name].get("augment")
        return kind(name) in (*OF_FEATURES, "probe") and not (
            key == "bank" and augmented
        )

    def _judge(self, name, features_of):
        """An evaluator of features."""
        s = {k: v for k, v in self._settings[name].items() if k not in SPLITS}
        del s["every_epochs"]
        readout = (1, s.pop("pool"))
        if kind(name) == "knn":
            s["mesh"] = self._run.mesh
        found = (features_of(name, key) for key in ("bank", "queries"))
        bank, queries = ((x[readout], labels) for x, labels in found)
        found = OF_FEATURES[kind(name)](bank, queries, **s)
        how = f"_{readout[1]}" + "_standardized" * bool(s.get("standardize"))
        return {"/".join(rename(key, how)): value for key, value in found.items()}

    def _probe(self, name, params, features_of):
        """A grid of linear heads; nothing where it was stopped."""
        s = self._settings[name]
        grid = heads.read_config(s)
        what = self._splits.what(s, "bank")
        source = self._splits.open(what)
        if grid.augment:
            feed = feeds.augmented(
                grid,
                self._run.encoder,
                params,
                self._run.normalize,
                lambda start: self._splits.augmented(what, s, start),
                len(source),
            )
        else:
            feed = feeds.cached(grid, features_of(name, "bank"))
        folder = self._folder / name if self._folder and grid.augment else None
        found = probe.train(
            grid,
            feed,
            features_of(name, "select") if s["select"] else None,
            features_of(name, "queries"),
            classes=source.num_classes,
            mesh=self._run.mesh,
            folder=folder,
            asked=self._asked,
            say=self._say,
            about=self._splits.describe(what, s),
        )
        if found is None:
            raise Stopped
        return found

    @staticmethod
    def _named(results):
        return {
            f"eval/{name}/{key}": value
            for name, values in results.items()
            for key, value in values.items()
        }
