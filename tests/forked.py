"""Many commands in forks of one process that has imported what they need.

    [{"argv": ["vit_ssl_jax.main", "--config=..."], "cwd": "...", "dry": false}]

on stdin gives `[{"status": 0, "said": "...", "seconds": 1.2, "cpu": 1}]` on stdout. A fork runs its
module as `python -m` does, from its own start: no jax device is in use before. With `dry`
it ends once the flags are read and the config's values are checked; with `met` the next job
begins at once, which it is to meet.
"""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from tests import runs

FLAGS = (
    *("vit_ssl_jax.command", "vit_ssl_jax.own", "vit_ssl_jax.evaluators.linear"),
    *(f"vit_ssl_jax.methods.{name}" for name in ("mae", "ijepa", "dino", "lejepa")),
    *(f"vit_ssl_jax.evaluators.{name}" for name in ("knn", "classify", "pretext")),
)
SETTINGS = {"COLUMNS": "88", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
WORK = (
    *(f"vit_ssl_jax.{name}" for name in ("train", "judging", "encoder", "classifier")),
    *("sklearn.linear_model", "tensorboardX", "skimage.color"),
)


def run(jobs, timeout=600, cache=""):
    """Runs jobs one after the other, as above; returns what each came to.

    cache: a folder for what is compiled, which jobs share.
    """
    command = [sys.executable, "-m", "tests.forked"]
    done = subprocess.run(
        command,
        cwd=runs.ROOT,
        env=runs.environment(1)
        | {"PYTHONPATH": str(runs.ROOT)}
        | SETTINGS
        | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def do(jobs):
    """Runs jobs in forks one by one, one that is to be met with the next: results."""
    results, waiting = [], []
    for job in jobs:
        waiting.append(begin(**job))
        if not job.get("met"):
            results += [finish(*one) for one in waiting]
            waiting = []
    return results


def begin(met=False, **job):
    """Begins a job in a fork."""
    del met
    said = tempfile.TemporaryFile()  # noqa: SIM115 - `finish` closes it
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        os._exit(execute(**job))
    return child, said, begun


def finish(child, said, begun):
    """Waits for a job: its exit status, what it said, and how long it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, status = os.waitpid(child, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - begun
    with said:
        said.seek(0)
        text = said.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(status)
    return dict(status=status, said=text, seconds=round(seconds, 2), cpu=round(cpu, 2))


def execute(argv, cwd=".", dry=False, picture=False, alone=False, copy=()):
    """Runs a module with its arguments as `python -m` would; returns its exit status.

    copy: folders `(from, to, name)` that are copied first. alone: in a new interpreter,
    as one of several processes must be. Without `picture` a run ends without one, as in
    other tests: it takes 2 of 5 seconds.
    """
    for source, target, name in copy:
        shutil.copytree(pathlib.Path(source, name), pathlib.Path(target, name))
    os.makedirs(cwd, exist_ok=True)
    os.chdir(cwd)
    if alone:
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        os.execv(sys.executable, [sys.executable, "-m", *argv])
    sys.path.insert(0, os.getcwd())
    module, *sys.argv[1:] = argv
    if dry:
        stop_after_flags()
    if "vit_ssl_jax.closing" in sys.modules and not picture:
        sys.modules["vit_ssl_jax.closing"].save_picture = lambda *_: "no picture"
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:  # noqa: BLE001 - a command's end is told, whatever it is
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def stop_after_flags():
    """Makes commands end where they have read their flags, the config's values checked."""
    from absl import app, flags

    def parse(main, flags_parser):
        del main
        words = flags_parser(sys.argv)[1:]
        if words:
            sys.exit(f"error: unexpected argument {words[0]!r}")
        config = getattr(flags.FLAGS, "config", None)
        if config is not None:
            check(config)
        sys.exit(0)

    app.run = parse
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(self, *args):
        parse_args(self, *args)
        sys.exit(0)

    argparse.ArgumentParser.parse_args = parse_only


def check(config):
    """Raises UserError for a value of a config that can't be."""
    from vit_ssl_jax import checks, evaluators, own, recipes

    if "tasks" not in config:
        recipes.fill(config, {})
        own.choose(config, config.data.num_examples, "cpu")
        checks.check_config(config)
        values = config.method.to_dict()
        module = importlib.import_module(f"vit_ssl_jax.methods.{values.pop('name')}")
        checks.make_config(module, "config.method", module.__name__, values)
        for name, settings in config.evals.to_dict().items():
            evaluators.read_config(name, settings)


def main():
    """Imports what commands do, then does the jobs."""
    jobs = json.load(sys.stdin)
    for name in FLAGS if all(job.get("dry") for job in jobs) else WORK:
        importlib.import_module(name)
    sys.modules["vit_ssl_jax.evaluators"].names()  # which imports them all
    print(json.dumps(do(jobs)))


if __name__ == "__main__":
    main()
