"""Judges finished encoders: every task of a suite, by every evaluator; for `evaluate`."""

import collections
import functools
import hashlib
import json

import jax
from etils import epath
from ml_collections import ConfigDict

from vit_ssl_jax import evaluators, finished, openers, partition
from vit_ssl_jax.data import pairs, sources
from vit_ssl_jax.distributed.signals import Stopped, stop_on_signal
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators.suite import Suite
from vit_ssl_jax.results import side_by_side
from vit_ssl_jax.workdir.folder import open_workdir, replace
from vit_ssl_jax.xla import cache

SPLITS = ("train", "select", "test")
AS_TRAINED = -1  # of a task's `resize`
PLACES = ("mesh", "eval_batch_size")  # of a suite, change no result


def judge(config, paths, workdir, say):
    """Judges the checkpoints at `paths` as `evaluate.evaluate` says."""
    say(f"{config.recipe}: {', '.join(config.tasks)}")
    trained = [finished.read_trained(path, config.variant) for path in paths]
    trained = {one.folder: one for one in trained}
    for task in config.tasks.values():
        choose_evaluators(config, task)  # bad values end it before any work
    tasks = open_tasks(config, say)
    cache.use_cache()
    outs = {
        folder: open_workdir(workdir or one.saved.home) / "evaluations"
        for folder, one in trained.items()
    }
    by_checkpoint = {}
    with stop_on_signal() as stop_requested:
        for folder in trained:
            outs[folder].mkdir(exist_ok=True)
            say(f"checkpoint {folder}")
            label = trained[folder].saved.label
            file = outs[folder] / f"{name_of(config, label)}.json"
            try:
                results = run_tasks(
                    config, tasks, trained[folder], file, stop_requested, say
                )
            except Stopped:
                say("stopped; the same command goes on with the task it was at")
                return by_checkpoint
            by_checkpoint[str(folder)] = results
    say(side_by_side.table(by_checkpoint))
    return by_checkpoint


def name_of(config, label):
    """Name of a file of results: suite, run and step, and a hash of the settings."""
    text = json.dumps(flat_settings(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    suite = config.recipe.replace(":", "_")
    return f"{suite}-{label}-{digest}"


def flat_settings(config):
    """What the results depend on, as plain JSON."""
    settings = json.loads(config.to_json_best_effort())
    for task in settings["tasks"].values():
        del task["dir"]
    return {key: value for key, value in settings.items() if key not in PLACES}


def open_tasks(config, say):
    """The tasks whose data is there; a line says which are not, and why."""
    tasks, off, why = {}, collections.Counter(), ""
    for name, task in config.tasks.items():
        try:
            maps = wanted(choose_evaluators(config, task)[0], "maps")
            open_source = opener(task, maps)
            for split in filter(None, (task[key] for key in SPLITS)):
                source = open_source(task.set, task.dir, split, label=task.label)
                if not source.num_classes and not maps:
                    raise UserError(f"{source.name} has no labels")
        except UserError as error:
            why = f"config.tasks.{name}: {error}"
            kind = (
                f"{task.group} ({task.set.partition('/')[0]})" if task.group else name
            )
            if not off[kind]:
                say(f"task {name} is off: {why}")
            off[kind] += 1
            continue
        tasks[name] = task
    for kind, count in off.items():
        if count > 1:
            say(f"{count - 1} more tasks of {kind} are off, too")
    if not tasks:
        raise UserError(f"no task can be evaluated; the last one said: {why}")
    return tasks


def opener(task, maps=False):
    """What opens a task's splits, as `sources.open_source`; `maps`: images with maps.

    Its list of names is for the splits that are learned from. Of a folder without a test
    split some images are held out, where one is asked for.
    """
    if maps and task.get("list", ""):
        raise UserError("list: images with maps are all learned from; set list=''")
    if maps:
        return pairs.open_pairs
    kinds = {}
    if path := task.get("list", ""):
        kinds["lists"] = openers.lists_of(path, task.train)
    if task.set in sources.FILES:
        kinds["hold_out"] = openers.asks_for_test(task[key] for key in SPLITS)
    return functools.partial(sources.open_source, **kinds)


def run_tasks(config, tasks, trained, file, stop_requested, say):
    """Runs all tasks for one checkpoint: `{metric: float}`, written after each of them.

    Tasks that a stopped evaluation has behind it are read from `file`.
    """
    folder, content = trained.folder, {}
    # Tasks of one size share the model, and its compiled forward pass.
    mesh = partition.make_mesh(config.mesh)
    load, load_whole = (
        functools.lru_cache(1)(functools.partial(loader, trained, mesh))
        for loader in (finished.load_encoder, finished.load_model)
    )
    if file.exists():
        content = json.loads(file.read_text())
    done = {} if content.get("finished", True) else content["tasks"]
    for name, task in tasks.items():
        if name not in done:
            out = epath.Path(file).parent / file.stem / name
            done[name] = run_task(
                config,
                name,
                task,
                trained,
                load=load,
                load_whole=load_whole,
                folder=out,
                stop_requested=stop_requested,
                say=say,
            )
        results = {f"{t}/{key}": v for t in done for key, v in done[t].items()}
        results |= side_by_side.averages(config, done, results)
        content = dict(
            evaluation=config.recipe,
            recipe=trained.config.recipe,
            checkpoint=str(folder),
            step=trained.saved.step,
            finished=len(done) == len(tasks),
            results=results,
            tasks=done,
            settings=flat_settings(config),
            trained=json.loads(trained.config.to_json_best_effort()),
        )
        if jax.process_index() == 0:
            replace(file, json.dumps(content, indent=2) + "\n")
    return results


def run_task(
    config, name, task, trained, *, load, load_whole, folder, stop_requested, say
):
    """Runs all evaluators on a task: `{evaluator/metric: float}`.

    `load` is `finished.load_encoder` of the checkpoint, `load_whole` its `load_model`.
    """
    size = tuple(task.size or trained.config.data.size)
    evals, whole = choose_evaluators(config, task)
    if whole:
        finished.check_size(trained, size, f"config.tasks.{name}.size")
        model, state = load_whole()
    else:
        model, state, lines = load(size)
        for line in lines[1:]:
            say(line)
    data = dict(
        name=task.set,
        dir=task.dir,
        label=task.label,
        size=size,
        **prepared_as(task, trained.config.data, size),
        eval_batch_size=config.eval_batch_size,
    )
    if task.resize == AS_TRAINED or not task.interpolation:
        resized = f"{'sides' if data['squash'] else 'short side'} {data['resize']}"
        say(
            f"task {name}: {resized}, {data['interpolation']}, as the model was trained"
        )
    with_baselines = config.get("baselines", False)  # configs/eval_folder.py has them
    suite = Suite(
        ConfigDict(dict(data=data, evals=evals)),
        model,
        labelled=True,
        say=say,
        folder=folder,
        stop_requested=stop_requested,
        open_source=opener(task),
        strict=not with_baselines,
    )
    if not suite.names:
        raise UserError(f"config.tasks.{name}: none of its evaluators can work")
    metrics = suite.evaluate(state)
    if with_baselines:
        metrics |= suite.evaluate_baselines(finished.untrained(model, state))
    return {key.removeprefix("eval/"): value for key, value in metrics.items()}


def prepared_as(task, trained, size):
    """How a task's images are resized; what it leaves open is that of training.

    `trained` is the checkpoint's `config.data`, `size` that of the images.
    """
    resize, squash = task.resize or min(size), task.squash
    if task.resize == AS_TRAINED:
        resize, squash = finished.scale_resize(trained, size), trained.squash
    interpolation = task.interpolation or trained.interpolation
    return dict(resize=resize, squash=squash, interpolation=interpolation)


def choose_evaluators(config, task):
    """Chooses `(settings by evaluator, whether one wants the whole model)` for a task.

    Each is told the task's splits and metric, as far as it has a use for them. Raises
    UserError for settings that can't work.
    """
    splits = dict(bank=task.train, select=task.select, queries=task.test)
    task_settings = dict(splits, split=task.test, metric=task.metric)
    evals = {}
    for name, settings in config.evals.to_dict().items():
        known = evaluators.keys(name)
        told = {key: value for key, value in task_settings.items() if key in known}
        evals[name] = settings | told
    return evals, wanted(evals, "model")


def wanted(evals, what):
    """Whether one of the evaluators, `{name: settings}`, wants `what`, of `Wants`."""
    configs = {name: evaluators.read_config(name, evals[name]) for name in evals}
    return any(getattr(evaluators.find(n).wants(c), what) for n, c in configs.items())
