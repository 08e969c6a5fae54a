"""The tasks of a suite: whose data is there, on all hosts or on none; by what evaluators."""

import collections
import functools
import hashlib
import os
import socket

from vit_ssl_jax import evaluators, openers
from vit_ssl_jax.data import pairs, sources
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError

SPLITS = ("train", "select", "test")


def open_tasks(config, say):
    """The tasks whose data is there; a line says which are not, and why.

    Raises UserError where none is there, and, of several hosts, where one lacks data that
    others have, or has other images than process 0.
    """
    found = {name: look(config, name) for name in config.tasks}
    hosts = processes.tell_all(dict(host=socket.gethostname(), found=found))
    check_alike(hosts)
    off = collections.Counter()
    for name, one in found.items():
        if one["missing"]:
            task = config.tasks[name]
            kind = (
                f"{task.group} ({task.set.partition('/')[0]})" if task.group else name
            )
            if not off[kind]:
                say(f"task {name} is off: {one['missing']}")
            off[kind] += 1
    for kind, count in off.items():
        if count > 1:
            say(f"{count - 1} more tasks of {kind} are off, too")
    tasks = {n: task for n, task in config.tasks.items() if not found[n]["missing"]}
    if not tasks:
        why = list(found.values())[-1]["missing"]
        raise UserError(f"no task can be evaluated; the last one said: {why}")
    return tasks


def look(config, name):
    """What this host has of a task: `{missing: why, or "", splits: {split: identity}}`."""
    task, splits = config.tasks[name], {}
    try:
        maps = wanted(choose_evaluators(config, task)[0], "maps")
        open_source = opener(task, maps)
        for split in filter(None, (task[key] for key in SPLITS)):
            source = open_source(task.set, task.dir, split, label=task.label)
            if not source.num_classes and not maps:
                raise UserError(f"{source.name} has no labels")
            splits[split] = identify(source)
    except UserError as error:
        return dict(missing=f"config.tasks.{name}: {error}", splits={})
    return dict(missing="", splits=splits)


def identify(source):
    """What is the same of two copies of a set: `[images, hash of classes and names]`.

    Of files the last two parts of their paths are the names.
    """
    digest = hashlib.sha256(repr(source.class_names).encode())
    for i in range(len(source) if source.files else 0):
        name = source.where(i).split(os.sep)[-2:]
        digest.update(repr(name).encode(errors="surrogateescape"))
    return [len(source), digest.hexdigest()]


def check_alike(hosts):
    """Raises UserError, the same on all, where hosts differ in the data of a task.

    `hosts` are what each says: `{host, found: {task: look(...)}}`, process 0's first.
    """
    for name in hosts[0]["found"]:
        have = [i for i, one in enumerate(hosts) if not one["found"][name]["missing"]]
        for i, one in enumerate(hosts):
            here, first = one["found"][name], hosts[0]["found"][name]
            who = f"process {i} on {one['host']}"
            if have and here["missing"]:
                other = f"process {have[0]} on {hosts[have[0]]['host']}"
                raise UserError(
                    f"{who} lacks what {other} has: {here['missing']}. Put the same data "
                    "on every host, or leave the task out"
                )
            for split, (images, digest) in here["splits"].items():
                if [images, digest] != first["splits"][split]:
                    raise UserError(
                        f"config.tasks.{name}: {split} is not the same on all hosts: "
                        f"{images} images on {one['host']} (process {i}), "
                        f"{first['splits'][split][0]} on {hosts[0]['host']} (process 0), "
                        "or others, or other classes. Put the same data on every host"
                    )


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
