"""Small runs for tests, as a user would start them."""

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from vit_ssl_jax import own

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
EVALUATIONS = [name for name in CONFIGS if name.startswith(("eval_", "probe_"))]
RECIPES = [name for name in CONFIGS if name not in EVALUATIONS]
SMALL = {
    "data.name": "fake",
    "vit.variant": "2x32x2/8",
    "batch_size": 16,
    "steps": 400,
    "log_every": 1,
    "checkpoint_every": 20,
    "summary": False,
    "health.every": 0,
    "pictures.every_epochs": 0.0,
    "evals.knn.every_epochs": -1.0,
    "evals.linear.every_epochs": -1.0,
}
# Hyper-parameters of a method, by the end of their names: values of a tiny one.
TINY = {"_width": 16, "_depth": 1, "_heads": 4, "patch_cells": 2}
TINY |= {"prototypes": 64, "slices": 32, "local_crops": 2}
# Flags of XLA for CPU that, beside jax's own setting, take a third of compile time.
FASTER = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # later ones don't know it
    FASTER += " --xla_cpu_use_fusion_emitters=false"
PIXELS = ("tile", "gap", "cell", "local_size")  # those that are measured in pixels


def load(path, *arguments):
    """The ConfigDict of a config file of the repository; own images are many, on TPUs."""
    config = _module(path).get_config(*arguments).lock()
    own.choose(config, 10_000, "tpu")
    return config


def arguments(path):
    """What a config file can be given after a colon: tuples of arguments.

    METHODS or RECIPES are its choices; VARIANTS are beside what it is without one.
    """
    if path == "eval_folder.py":
        return [("photos",)]
    module = _module(path)
    choices = getattr(module, "METHODS", None) or getattr(module, "RECIPES", ())
    named = [(name,) for name in (*choices, *getattr(module, "VARIANTS", ()))]
    return named if choices else [(), *named]


def _module(path):
    spec = importlib.util.spec_from_file_location("config", ROOT / "configs" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(method="mae", **changes):
    """The quickstart, shrunk to a second; `changes` by dotted key with `__` for dots."""
    config = load("quickstart.py", method)
    config.update_from_flattened_dict(SMALL)
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return config


def mostly_slow(cases, *always):
    """Cases for `parametrize`: some run always, the others with -m slow."""
    import pytest  # here because studies do without

    def later(case):
        several = case if isinstance(case, tuple) else (case,)
        return pytest.param(*several, marks=pytest.mark.slow)

    return [case if case in always else later(case) for case in cases]


def tiny_method(numbers, patch):
    """A recipe's hyper-parameters for patches of 2 px in place of `patch`.

    Networks are small and pixels are to scale, so grid, masks and tiles stay those of
    the recipe.
    """
    numbers = {k: 2 * v // patch if k in PIXELS else v for k, v in numbers.items()}
    small = {k: v for k in numbers for end, v in TINY.items() if k.endswith(end)}
    return numbers | small


def command(workdir, *more, config="quickstart", method="mae", devices=1, **changes):
    """Starts `python -m vit_ssl_jax.main` on the small run; returns the process.

    `more` are other flags. A change to None leaves a key as the config has it.
    """
    changes = SMALL | {k.replace("__", "."): v for k, v in changes.items()}
    changes = {k: v for k, v in changes.items() if v is not None}
    flags = [*more, *(f"--config.{key}={value}" for key, value in changes.items())]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "vit_ssl_jax.main"),
            f"--config=configs/{config}.py:{method}",
            f"--workdir={workdir}",
            *flags,
        ],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train_logged(config, workdir, *flags):
    """Runs the train command to its end, its output appended to `console.txt`."""
    command = [sys.executable, "-m", "vit_ssl_jax.main", f"--config=configs/{config}"]
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "console.txt", "a") as out:
        both = dict(stdout=out, stderr=subprocess.STDOUT)
        command += [f"--workdir={workdir}", *flags]
        subprocess.run(command, cwd=ROOT, check=True, **both)


def free_port():
    """A port that nobody listens at."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def environment(devices):
    """Environment variables of a command that sees so many CPU devices."""
    flags = f"{FASTER} --xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "XLA_FLAGS": flags,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }


def metrics(workdir):
    """The lines of metrics.jsonl."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def weights(workdir):
    """The newest checkpoint's state as flat numpy arrays."""
    root = pathlib.Path(workdir).absolute() / "checkpoints"
    return arrays(root / str(max(ocp.utils.checkpoint_steps(root))))


def arrays(folder):
    """The state of a checkpoint's folder as flat numpy arrays."""
    path = pathlib.Path(folder) / "state"
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
        # As numpy's: the devices that saved it may not be here.
        about = reader.metadata(path).tree
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), about)
        how = ocp.checkpoint_utils.construct_restore_args(like)
        args = ocp.args.PyTreeRestore(item=like, restore_args=how)
        return named(reader.restore(path, args=args))


def named(state):
    """The arrays of a state by their names."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {"/".join(map(_name, path)): np.asarray(x) for path, x in leaves}


def _name(key):
    return str(next(getattr(key, x) for x in ("key", "name", "idx") if hasattr(key, x)))
