"""python -m vit_ssl_jax.evaluate --config=configs/eval_SUITE.py --checkpoint=DIR[,DIR...]

Judges finished encoders: every task of the suite with every evaluator, for one checkpoint
or several. DIR is a run's workdir (its newest checkpoint) or a `checkpoints/STEP` in it.
"""

import functools
import hashlib
import json
import os
import statistics
from collections.abc import Callable, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from vit_ssl_jax import checkpoint, collected, command, judged, startup
from vit_ssl_jax.checks import check_evaluators
from vit_ssl_jax.data import sources
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators.suite import Suite, kind
from vit_ssl_jax.signals import Stopped, stop_on_signal
from vit_ssl_jax.workdir import open_workdir, replace

SPLITS = ("train", "select", "test")
PLACES = ("mesh", "eval_batch_size")  # of a suite, change no result


def evaluate(
    config: ConfigDict,
    checkpoints: str | os.PathLike | Sequence[str | os.PathLike],
    workdir: str | os.PathLike = "",
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Evaluates checkpoints by a suite: `{checkpoint: {metric: float}}`.

        evaluate(recipes.load("eval_quickstart.py"), "runs/quickstart")

    `config` is that of `configs/eval_*.py` or `probe_*.py`. What the model is comes
    from the config.json beside each checkpoint; `config.variant` says which ViT is
    expected, "" any. Results are printed, and written after every task to
    `evaluations/` in the run's workdir, or in `workdir` where that is given; a suite
    that was stopped goes on with the task it was at, a probe at the exact step. Tasks
    whose data isn't there are left out with a line. Raises UserError where nothing can
    be evaluated.
    """
    config = config.copy_and_resolve_references()
    if isinstance(checkpoints, str | os.PathLike):
        checkpoints = [checkpoints] if checkpoints else []
    if not checkpoints:
        raise UserError("--checkpoint: give a run's workdir or its checkpoints/STEP")
    say(f"{config.recipe}: {', '.join(config.tasks)}")
    folders = [checkpoint.find_folder(path) for path in checkpoints]
    trained = {folder: judged.read_trained(folder, config) for folder in folders}
    tasks = open_tasks(config, say)
    startup.use_cache()
    outs = {
        folder: open_workdir(workdir or folder.parent.parent) / "evaluations"
        for folder in folders
    }
    found = {}
    with stop_on_signal() as asked:
        for folder in folders:
            outs[folder].mkdir(exist_ok=True)
            say(f"checkpoint {folder}")
            file = outs[folder] / f"{name_of(config, folder)}.json"
            try:
                results = run_tasks(config, tasks, trained[folder], file, asked, say)
            except Stopped:
                say("stopped; the same command goes on with the task it was at")
                return found
            found[str(folder)] = results
    say(table(found))
    return found


def name_of(config, folder):
    """Of a file of results: the suite, the run, the step, and what was changed."""
    text = json.dumps(flat_settings(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    suite = config.recipe.replace(":", "_")
    return f"{suite}-{folder.parent.parent.name}-{folder.name}-{digest}"


def flat_settings(config):
    """What the results depend on, as plain JSON."""
    settings = json.loads(config.to_json_best_effort())
    for task in settings["tasks"].values():
        del task["dir"]
    return {key: value for key, value in settings.items() if key not in PLACES}


def open_tasks(config, say):
    """The tasks whose data is there; a line says which are not, and why."""
    tasks, why = {}, ""
    for name, task in config.tasks.items():
        try:
            for split in filter(None, (task[key] for key in SPLITS)):
                source = sources.open_source(
                    task.set, task.dir, split, label=task.label
                )
                if not source.num_classes:
                    raise UserError(f"{source.name} has no labels")
        except UserError as error:
            why = f"config.tasks.{name}: {error}"
            say(f"task {name} is off: {why}")
            continue
        tasks[name] = task
    if not tasks:
        raise UserError(f"no task can be evaluated; the last one said: {why}")
    return tasks


def run_tasks(config, tasks, trained, file, asked, say):
    """All tasks for one checkpoint: `{metric: float}`, written after each of them.

    Those that an evaluation that was stopped has behind it are read.
    """
    folder, content = trained.folder, {}
    # Tasks of one size share the model, and its compiled forward pass.
    load = functools.lru_cache(1)(functools.partial(judged.load_encoder, trained))
    if file.exists():
        content = json.loads(file.read_text())
    done = {} if content.get("finished", True) else content["tasks"]
    for name, task in tasks.items():
        if name not in done:
            out = epath.Path(file).parent / file.stem / name
            done[name] = run_task(config, name, task, trained, load, out, asked, say)
        results = {f"{t}/{key}": v for t in done for key, v in done[t].items()}
        results |= averages(config, done, results)
        content = dict(
            evaluation=config.recipe,
            recipe=trained.config.recipe,
            checkpoint=str(folder),
            step=int(folder.name),
            finished=len(done) == len(tasks),
            results=results,
            tasks=done,
            settings=flat_settings(config),
            trained=json.loads(trained.config.to_json_best_effort()),
        )
        if jax.process_index() == 0:
            replace(file, json.dumps(content, indent=2) + "\n")
    return results


def run_task(config, name, task, trained, load, out, asked, say):
    """All evaluators on a task: `{evaluator/metric: float}`.

    `load` is `judged.load_encoder` of the checkpoint.
    """
    size = task.size or trained.config.data.size
    splits = dict(bank=task.train, select=task.select)
    splits |= dict(queries=task.test, split=task.test)
    evals = ConfigDict(
        {
            key: dict(settings, every_epochs=0.0, metric=task.metric, **splits)
            for key, settings in config.evals.to_dict().items()
        }
    )
    check_evaluators(evals, trained.config.vit.cls)
    data = dict(
        name=task.set,
        dir=task.dir,
        label=task.label,
        size=size,
        resize=task.resize or min(size),
        squash=task.squash,
        interpolation=task.interpolation,
        eval_batch_size=config.eval_batch_size,
    )
    judge = ConfigDict(dict(data=data, evals=evals))
    if any(kind(key) == "classify" for key in evals):
        run, state = judged.load_classifier(trained, size, f"config.tasks.{name}.size")
    else:
        run, state, lines = load(tuple(size))
        for line in lines[1:]:
            say(line)
    suite = Suite(judge, run, True, say, folder=out, asked=asked)
    found = suite.evaluate(state)
    return {key.removeprefix("eval/"): value for key, value in found.items()}


def averages(config, done, results):
    """Means over the tasks of a group, and over all that have one, of what all report."""
    groups = {}
    for name in config.tasks:
        if group := config.tasks[name].group:
            groups.setdefault("mean", []).append(name)
            groups.setdefault(group, []).append(name)
    found = {}
    for group, names in groups.items():
        if len(names) < 2 or not all(name in done for name in names):
            continue  # a mean over part of a suite is no figure of the suite
        common = set.intersection(*(set(done[name]) for name in names))
        for key in sorted(common):
            values = [results[f"{name}/{key}"] for name in names]
            found[f"{group}/{key}"] = statistics.mean(values)
    return found


def table(found):
    """Markdown: a row a metric, a column a checkpoint; of a probe's grid the best."""
    names = dict.fromkeys(name for results in found.values() for name in results)
    names = [n for n in names if not collected.is_single_head(n)]
    columns = [epath.Path(folder) for folder in found]
    head = [f"{path.parent.parent.name} {path.name}" for path in columns]
    lines = [
        "| " + " | ".join(["metric", *head]) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name in names:
        cells = [show(name, results.get(name)) for results in found.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def show(name, value):
    """Accuracies in per cent, all else as it is."""
    if value is None:
        return ""
    if name.endswith(collected.PER_CENT):
        return f"{100 * value:.2f}"
    return f"{value:.4g}"


def run(config, checkpoint, workdir):
    """The command."""
    paths = [path for path in checkpoint.split(",") if path]
    evaluate(config, paths, workdir)


if __name__ == "__main__":
    command.start(
        run,
        optional=("workdir",),
        config="Suite, configs/eval_NAME.py or configs/probe_NAME.py.",
        checkpoint="Workdirs of runs or their checkpoints/STEP, parted by commas.",
        workdir="Folder for the results; else the run's own.",
    )
