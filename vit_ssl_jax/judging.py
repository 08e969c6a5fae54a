"""Judges finished encoders: every task of a suite, by every evaluator; for `evaluate`."""

import contextlib
import functools
import hashlib
import json
import socket

import jax
from etils import epath
from ml_collections import ConfigDict

from vit_ssl_jax import arguments, finished, partition, tasks
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.distributed.signals import Stopped, agree, stop_on_signal
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators.suite import Suite
from vit_ssl_jax.results import side_by_side
from vit_ssl_jax.workdir import checkpoint, lock
from vit_ssl_jax.workdir.files import read_dict
from vit_ssl_jax.workdir.folder import open_workdir, replace
from vit_ssl_jax.xla import cache

AS_TRAINED = -1  # of a task's `resize`
PLACES = ("mesh", "eval_batch_size")  # of a suite, change no result


def judge(config, paths, workdir, say):
    """Judges the checkpoints at `paths` as `evaluate.evaluate` says."""
    if jax.process_index():
        say = keep_quiet
    say(f"{config.recipe}: {', '.join(config.tasks)}")
    trained = read_all(paths, config.variant)
    for task in config.tasks.values():
        tasks.choose_evaluators(config, task)  # bad values end it before any work
    there = tasks.open_tasks(config, say)
    cache.use_cache()
    outs = {
        folder: open_workdir(workdir or one.saved.home) / "evaluations"
        for folder, one in trained.items()
    }
    by_checkpoint = {}
    with stop_on_signal() as requested:
        stop_requested = agree(requested)
        for folder in trained:
            say(f"checkpoint {folder}")
            label = trained[folder].saved.label
            file = outs[folder] / f"{name_of(config, label)}.json"
            try:
                with alone(file, say):
                    results = run_tasks(
                        config, there, trained[folder], file, stop_requested, say
                    )
            except Stopped:
                say("stopped; the same command continues with the task it was at")
                return by_checkpoint
            by_checkpoint[str(folder)] = results
    say(side_by_side.table(by_checkpoint))
    return by_checkpoint


@contextlib.contextmanager
def alone(file, say):
    """Holds what a file of results is made in; UserError where another process does."""
    folder = epath.Path(file).parent / file.stem
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    with lock.hold(folder, say):
        yield
    if jax.process_index() == 0:
        with contextlib.suppress(OSError, ValueError):  # it holds a probe's checkpoints
            folder.rmdir()


def keep_quiet(line):
    """Process 0 says it."""


def read_all(paths, variant):
    """The `finished.Trained` of all paths, by their folders; the same on all hosts.

    Raises UserError where one can't be read, or is another on another host.
    """
    with processes.together():
        for path in paths:
            arguments.check_checkpoint(path)
        trained = [finished.read_trained(path, variant) for path in paths]
    check_alike(
        "--checkpoint",
        [[str(one.folder), one.config.to_json_best_effort()] for one in trained],
    )
    return {one.folder: one for one in trained}


def check_alike(what, value):
    """Raises UserError, on all processes, unless a value is the same on all."""
    said = processes.tell_all([socket.gethostname(), value])
    for i, (host, other) in enumerate(said):
        if other != said[0][1]:
            raise UserError(
                f"{what}: process {i} on {host} reads something else than process 0 on "
                f"{said[0][0]}; give a folder that all hosts share, and no run that still "
                "trains (or its checkpoints/STEP)"
            )


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


def run_tasks(config, there, trained, file, stop_requested, say):
    """Runs all tasks for one checkpoint: `{metric: float}`, written after each of them.

    Tasks that a stopped evaluation has behind it are read from `file`.
    """
    folder, content = trained.folder, {}
    mesh = partition.make_mesh(config.mesh)
    # Tasks of one size share the model, and its compiled forward pass.
    load, load_whole = (
        functools.lru_cache(1)(functools.partial(load_alike, trained, loader, mesh))
        for loader in (finished.load_encoder, finished.load_model)
    )
    if jax.process_index() == 0:
        content = read_dict(file) or {}
    content = processes.tell_all(content)[0]
    done = {} if content.get("finished", True) else content["tasks"]
    for name, task in there.items():
        if name not in done:
            out = epath.Path(file).parent / file.stem / name
            metrics = run_task(
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
            done[name] = processes.tell_all(metrics)[0]
        results = {f"{t}/{key}": v for t in done for key, v in done[t].items()}
        results |= side_by_side.averages(config, done, results)
        content = dict(
            evaluation=config.recipe,
            recipe=trained.config.recipe,
            checkpoint=str(folder),
            step=trained.saved.step,
            finished=len(done) == len(there),
            results=results,
            tasks=done,
            settings=flat_settings(config),
            trained=json.loads(trained.config.to_json_best_effort()),
        )
        if jax.process_index() == 0:
            replace(file, json.dumps(content, indent=2) + "\n")
    return results


def load_alike(trained, load, *more):
    """What `load(trained, mesh, ...)` gives, a model and a state first; alike on all hosts.

    Raises UserError where a host can't load it, or has other weights.
    """
    with processes.together():
        loaded = load(trained, *more)
    if jax.process_count() > 1:
        state = loaded[1]
        digest = int(checkpoint.digest((state.params, state.ema)))
        check_alike(f"the weights of {trained.folder}", digest)
    return loaded


def run_task(
    config, name, task, trained, *, load, load_whole, folder, stop_requested, say
):
    """Runs all evaluators on a task: `{evaluator/metric: float}`.

    `load` is `finished.load_encoder` of the checkpoint, for a size, `load_whole` its
    `load_model`.
    """
    size = tuple(task.size or trained.config.data.size)
    evals, whole = tasks.choose_evaluators(config, task)
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
    with processes.together():
        suite = Suite(
            ConfigDict(dict(data=data, evals=evals)),
            model,
            labelled=True,
            say=say,
            folder=folder,
            stop_requested=stop_requested,
            open_source=tasks.opener(task),
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
