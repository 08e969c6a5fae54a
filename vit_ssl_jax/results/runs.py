"""Reads back what runs and evaluations left behind: only files."""

import dataclasses
import json
import pathlib

from etils import epath

from vit_ssl_jax.checks import LATER
from vit_ssl_jax.errors import CLOUD, UserError
from vit_ssl_jax.recipes import flatten
from vit_ssl_jax.workdir.files import is_stored, read_rows

# What may differ between runs that are repetitions of each other.
FREE = {
    *("seed", "init_from", "log_every", "checkpoint_every", "keep", "keep_best"),
    "keep_every",
    *("mesh", "accum"),
    *("data.dir", "data.threads", "data.workers", "data.max_broken"),
    *("data.max_pixels", "data.retry_seconds"),
    *("data.eval_batch_size", "summary", "track", "pictures", "evals"),
}

# Metrics that are shares, told in per cent.
PER_CENT = (
    *("top1", "top5", "mean_per_class", "std", "/ce", "/mce"),
    *("miou", "pixel_accuracy", "mean_accuracy", "delta1"),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one run measured, or one evaluation of it."""

    recipe: str
    evaluation: str  # "": the run's own evaluators
    settings: dict  # flat, without what repetitions may differ in
    step: int
    values: dict  # metric -> value


def find_folders(paths):
    """Folders of runs and of evaluations: the paths themselves, and what lies below.

    In a store (gs://), where a look is slow, at most two levels below.
    """
    folders = []
    for path in paths:
        stored = is_stored(path)
        try:
            if stored:
                below = look(epath.Path(path), ("", "*/", "*/*/"))
            else:
                below = look(pathlib.Path(path), ("**/",))
        except Exception as error:
            reason = f"{path} can't be read ({error})" + CLOUD * stored
            raise UserError(reason) from error
        if not below:
            depth = "within two levels" if stored else "at any depth"
            raise UserError(
                f"{path} holds no run: there is no config.json or evaluations/*.json "
                f"{depth}"
            )
        folders += sorted(set(below))
    return list(dict.fromkeys(folders))


def look(path, depths):
    """Folders of runs and evaluations below `path`, by glob."""
    folders = []
    for deep in depths:
        folders += [file.parent for file in path.glob(f"{deep}config.json")]
        folders += [
            file.parent.parent for file in path.glob(f"{deep}evaluations/*.json")
        ]
    return folders


def read_runs(folder):
    """What a folder holds: `Measured` of a run, and of the evaluations beside it.

    Of a run the newest values of its own evaluators; of evaluations that differ in the
    checkpoint alone, that of the latest.
    """
    file = folder / "config.json"
    if file.exists():
        config = read_json(file)
        step, values = read_evaluators(folder / "metrics.jsonl")
        if values:
            yield Measured(recipe_of(config, file), "", trained(config), step, values)
    latest = {}
    for file in sorted(folder.glob("evaluations/*.json")):
        run, new = read_evaluation(file)
        if run not in latest or latest[run].step < new.step:
            latest[run] = new
    yield from latest.values()


def read_evaluation(file):
    """One of evaluations/*.json: what it is of, and its `Measured`.

    Raises UserError where the file is none.
    """
    one = read_json(file)
    try:
        settings = trained(one["trained"]) | {
            f"{one['evaluation']}.{k}": v for k, v in flatten(one["settings"]).items()
        }
        run = (one["recipe"], one["trained"]["seed"], json.dumps(settings))
        results = dict(one["results"])
        return run, Measured(
            one["recipe"], one["evaluation"], settings, one["step"], results
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is no evaluation: {error!r}") from error


def recipe_of(config, file):
    """The name of the recipe of a run."""
    if not isinstance(config, dict) or not isinstance(config.get("recipe"), str):
        raise UserError(f"{file} names no recipe; is it of an older version?")
    return config["recipe"]


def trained(config):
    """Settings that tell a run from others that aren't its repetitions: flat.

    Those that older runs lack are left out where they are as those runs had them.
    """
    flat = {k: v for k, v in flatten(config).items() if not is_free(k)}
    flat = {k: v for k, v in flat.items() if k not in LATER or v != LATER[k]}
    return flat | began_with(config.get("init_from", ""))


def began_with(path):
    """Settings of the run at `path`, whose encoder another began with; {} for ""."""
    if not path:
        return {}
    run = pathlib.Path(path.removesuffix(":best"))  # one in a bucket isn't looked up
    run = run.parent.parent if run.parent.name in ("checkpoints", "best") else run
    if run.is_file():
        return {"init_from": run.name}  # weights that other code saved
    before = read_json(run / "config.json") if (run / "config.json").exists() else {}
    if "recipe" not in before:
        return {"init_from": "another run"}
    before = trained(before)
    return {f"init_from.{key}": value for key, value in before.items()}


def read_evaluators(file):
    """The newest value of every evaluator of a run: `(step, {metric: value})`."""
    newest, step = {}, 0
    for row in read_rows(file):
        mine = {k[5:]: v for k, v in row.items() if k.startswith("eval/")}
        newest |= mine
        step = row.get("step", step) if mine else step
    return step, newest


def is_single_head(metric):
    """Whether a metric is of one head of a probe's grid, and not of the best."""
    return "/probe" in f"/{metric}" and "/best" not in metric


def is_free(key):
    """Whether repetitions of a run may differ in a key."""
    return any(key == free or key.startswith(free + ".") for free in FREE)


def read_json(file):
    """A JSON file; raises UserError where it is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be read ({error}); is the run whole?") from error
