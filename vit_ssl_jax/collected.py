"""What runs and evaluations left behind, read back: no jax, only files."""

import dataclasses
import json
import pathlib

from vit_ssl_jax.errors import UserError

# What may differ between runs that are repetitions of each other.
FREE = {
    *("seed", "init_from", "log_every", "checkpoint_every", "keep", "mesh", "accum"),
    *("data.dir", "data.threads", "data.eval_batch_size", "summary", "evals"),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """What one run measured, or one evaluation of it."""

    recipe: str
    evaluation: str  # "": the run's own evaluators
    settings: dict  # flat, without what repetitions may differ in
    step: int
    values: dict  # metric -> value


def find_folders(paths):
    """Folders of runs and of evaluations: the paths themselves, and what lies below."""
    found = []
    for path in map(pathlib.Path, paths):
        below = [file.parent for file in path.glob("**/config.json")]
        below += [file.parent.parent for file in path.glob("**/evaluations/*.json")]
        if not below:
            raise UserError(
                f"{path} holds no run: there is no config.json or evaluations/*.json at "
                "any depth"
            )
        found += sorted(set(below))
    return list(dict.fromkeys(found))


def read_runs(folder):
    """What a folder holds: `Found` of a run, and of the evaluations beside it.

    Of a run the newest values of its own evaluators; of evaluations that differ in the
    checkpoint alone, that of the latest.
    """
    file = folder / "config.json"
    if file.exists():
        config = read_json(file)
        step, values = read_metrics(folder / "metrics.jsonl")
        if values:
            yield Found(recipe_of(config, file), "", trained(config), step, values)
    latest = {}
    for file in sorted(folder.glob("evaluations/*.json")):
        one = read_json(file)
        settings = trained(one["trained"]) | {
            f"{one['evaluation']}.{k}": v for k, v in flatten(one["settings"]).items()
        }
        run = (one["recipe"], one["trained"]["seed"], json.dumps(settings))
        new = Found(
            one["recipe"], one["evaluation"], settings, one["step"], one["results"]
        )
        if run not in latest or latest[run].step < new.step:
            latest[run] = new
    yield from latest.values()


def recipe_of(config, file):
    """The name of the recipe of a run."""
    if "recipe" not in config:
        raise UserError(f"{file} names no recipe; is it of an older version?")
    return config["recipe"]


def trained(config):
    """What tells a run from others that aren't its repetitions."""
    flat = {k: v for k, v in flatten(config).items() if not is_free(k)}
    if config.get("init_from"):
        source = pathlib.Path(config["init_from"])
        source = source.parent.parent if source.parent.name == "checkpoints" else source
        flat["init_from"] = "another run"
        if (source / "config.json").exists():
            before = trained(read_json(source / "config.json"))
            del flat["init_from"]
            flat |= {f"init_from.{key}": value for key, value in before.items()}
    return flat


def read_metrics(file):
    """The newest value of every evaluator: `(step, {metric: value})`."""
    newest, step = {}, 0
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        mine = {k[5:]: v for k, v in values.items() if k.startswith("eval/")}
        newest |= mine
        step = values["step"] if mine else step
    return step, newest


def is_free(key):
    """Whether repetitions of a run may differ in a key."""
    return any(key == free or key.startswith(free + ".") for free in FREE)


def flatten(tree, prefix=""):
    """Nested dicts as one, with dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = (flatten(v, f"{prefix}.{k}" if prefix else k) for k, v in tree.items())
    return {k: v for part in parts for k, v in part.items()}


def read_json(file):
    """A JSON file; raises UserError where it is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read ({error}); is the run whole?") from error
