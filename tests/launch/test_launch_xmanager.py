"""launch/xmanager.py: which work units a sweep gives, and that they run."""

import importlib.util
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE = ("--config=configs/quickstart.py", "--workdir=gs://b/one")
SWEEP = """
def get_hyper(hyper):
    rates = hyper.sweep("config.optim.lr", [1e-4, 3e-4])
    pairs = [hyper.sweep("seed", [0, 1]), hyper.fixed("steps", 9, length=2)]
    return hyper.product([rates, hyper.zipit(pairs)])
"""
SEEDS = 'def get_hyper(hyper):\n    return hyper.sweep("config.seed", [0, 1])\n'


def file(stage, text):
    """A Python file with a sweep."""
    path = stage.folder / "swept.py"
    path.write_text(text)
    return str(path)


def test_a_dry_run_prints_the_work_units(stage):
    stage.golden("xm_one", "xmanager.py", *ONE, "--config.batch_size=8")
    both = "--config=configs/quickstart.py:mae,configs/quickstart.py:ijepa"
    sweep = f"--sweep={file(stage, SWEEP)}"
    stage.golden(
        "xm_sweep", "xmanager.py", both, ONE[1], sweep, "--", "--config.keep=1"
    )


def test_work_units_judge_where_a_checkpoint_is_given(stage):
    flags = ("--config=configs/eval_quickstart.py", "--workdir=r", "--checkpoint=a,b")
    done = stage("xmanager.py", *flags, "--dry_run")
    line = "python -m vit_ssl_jax.evaluate --config=configs/eval_quickstart.py"
    assert done.stdout == f"{line} --workdir=r/1 --checkpoint=a,b\n"


def test_a_config_may_have_its_own_sweep(stage):
    config = f"--config={file(stage, SEEDS)}:mae"
    done = stage("xmanager.py", config, ONE[1], "--dry_run")
    lines = done.stdout.splitlines()
    assert [line.split("--config.")[1] for line in lines] == ["seed=0", "seed=1"]
    assert all(config in line for line in lines)


def sweeps():
    spec = importlib.util.spec_from_file_location("s", ROOT / "launch" / "sweeps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_helpers_of_a_sweep():
    h = sweeps()
    a, b = h.sweep("a", [1, 2]), h.sweep("b", [3, 4])
    every = [{"a": x, "b": y} for x in (1, 2) for y in (3, 4)]
    assert h.product([a, b]) == every
    assert h.zipit([a, b]) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert h.chainit([a, b]) == [{"a": 1}, {"a": 2}, {"b": 3}, {"b": 4}]
    assert h.fixed("a", 1, 2) == [{"a": 1}, {"a": 1}]
    assert h.product([a], name="optim") == [{"optim.a": 1}, {"optim.a": 2}]
    with pytest.raises(ValueError):
        h.zipit([a, h.sweep("b", [3])])
    with pytest.raises(ValueError, match="a is swept twice"):
        h.product([a, a])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ONE[1:], "--config"),
        (ONE[:1], "--workdir"),
        (("--config=nope.py", ONE[1]), "nope.py doesn't exist"),
        ((*ONE, "--sweep=configs/quickstart.py"), "has no get_hyper(hyper)"),
        ((ONE[0], "--workdir=runs/x"), "give --workdir=gs://BUCKET/RUN, or --local"),
        ((*ONE, "--steps=3"), "unknown flag --steps=3"),
        ((*ONE, "--local", "--python=nope"), "nope can't be started: No such file"),
        ((*ONE, "--local", "--python=/bin/false"), "/bin/false can't run the units"),
        ((*ONE, "--resources=h100"), "isn't like h100=8,cpu=96"),
        ((*ONE, "--resources=tpu_v5e=8"), "use launch/tpu_vm.sh"),
    ],
)
def test_bad_flags_are_refused_with_the_way_out(stage, flags, message):
    stage.refused(message, "xmanager.py", *flags)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('hyper.sweep("a", [])', "gives nothing to run"),
        ('hyper.zipit([[{"a": 1}], []])', "swept.py: ValueError: zip()"),
        ("nope", "swept.py: NameError: name 'nope'"),
        ("hyper.grid()", "has no attribute 'grid'"),
    ],
)
def test_a_sweep_that_can_not_be(stage, body, message):
    sweep = f"--sweep={file(stage, f'def get_hyper(hyper): return {body}')}"
    stage.refused(message, "xmanager.py", *ONE, sweep)


def test_without_xmanager_it_says_what_to_do(stage):
    if importlib.util.find_spec("xmanager"):
        pytest.skip("XManager is installed")
    stage.refused("give --local to run the units here", "xmanager.py", *ONE)


XM = """
log = []
class xm:
    JobRequirements = staticmethod(lambda **needs: needs)
    dockerfile_container = staticmethod(lambda spec, path, file: ("image", path, file))
    Job = staticmethod(lambda program, executor, args: args)
class xm_local:
    class Vertex:
        Spec = staticmethod(lambda: "vertex")
        def __init__(self, requirements): print(requirements)
    class create_experiment:
        def __init__(self, experiment_title): print(experiment_title)
        def __enter__(self): return self
        def __exit__(self, *error): pass
        def package(self, made): print(*made[0]); return made
        def add(self, job): print(*job)
"""


def test_an_experiment_is_one_image_and_a_job_a_work_unit(stage):
    """Against the calls of XManager 0.8 that were tried; the package isn't needed."""
    (stage.folder / "xmanager.py").write_text(XM)
    flags = (*ONE, f"--sweep={file(stage, SEEDS)}", "--resources=h100=8", "--title=T")
    done = stage("xmanager.py", *flags, PYTHONPATH=str(stage.folder))
    assert done.returncode == 0, done.stderr
    needs, title, image, *units = done.stdout.splitlines()
    assert (needs, title) == ("{'h100': 8}", "T")
    assert image == f"image {ROOT} {ROOT / 'launch' / 'Dockerfile'}"
    seeds = [f"--config.seed={seed}" for seed in (0, 1)]
    base = f"{ONE[0]} --workdir=gs://b/one"
    assert units == [f"{base}/{i} {seed}" for i, seed in enumerate(seeds, 1)]


def local(stage, config, workdir, *flags):
    """The command line of a sweep over two seeds, run here."""
    sweep = f"--sweep={file(stage, SEEDS)}"
    command = [sys.executable, "launch/xmanager.py", "--local", sweep]
    return [*command, f"--config={config}", f"--workdir={workdir}", *flags]


@pytest.mark.slow  # two starts of jax and two compilations
def test_the_work_units_of_a_sweep_run_here(stage, tmp_path):
    changes = runs.SMALL | {"steps": 2}
    small = [f"--config.{key}={value}" for key, value in changes.items()]
    command = local(stage, "configs/quickstart.py:mae", tmp_path / "runs", *small)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for wid, seed in ("1", 0), ("2", 1):
        workdir = tmp_path / "runs" / wid
        assert json.loads((workdir / "config.json").read_text())["seed"] == seed
        assert [row["step"] for row in runs.metrics(workdir)][-1] == 2
        assert (workdir / "checkpoints" / "2").is_dir()


@pytest.mark.slow  # an environment of its own, and a start of jax
def test_xmanager_starts_units_here_in_the_package_s_environment(stage, tmp_path):
    """XManager itself, installed as docs/guides/clusters.md says, where jax isn't."""
    xmanager = tmp_path / "xmanager" / "bin" / "python"
    packages = ["xmanager", "absl-py", "ml_collections"]
    for command in (
        [sys.executable, "-m", "venv", tmp_path / "xmanager"],
        [xmanager, "-m", "pip", "install", "-q", "uv"],
        [xmanager, "-m", "uv", "pip", "install", "--python", xmanager, *packages],
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"XManager can't be installed: {made.stderr[-300:]}")
    changes = runs.SMALL | {"steps": 2}
    small = [f"--config.{key}={value}" for key, value in changes.items()]
    flags = ["--config=configs/quickstart.py:mae", f"--workdir={tmp_path / 'runs'}"]
    command = [xmanager, "launch/xmanager.py", "--executor=local", *flags, *small]
    how = dict(cwd=ROOT, env=runs.environment(1), capture_output=True, text=True)

    refused = subprocess.run(command, **how, check=False)
    assert refused.returncode == 1 and "--python=VENV/bin/python" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    command.append(f"--python={sys.executable}")
    done = subprocess.run(command, **how, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "1" / "checkpoints" / "2").is_dir()


def test_a_work_unit_that_fails_lets_the_others_run(stage, tmp_path):
    command = local(stage, "configs/quickstart.py", tmp_path, "--config.nope=1")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("the config has no key") == 2
    assert done.stderr.endswith("error: work units 1, 2 of 2 failed\n")


def test_a_signal_stops_the_unit_that_is_on_and_starts_no_other(stage, tmp_path):
    package = tmp_path / "vit_ssl_jax"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "main.py").write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved') or 0))\n"
        "print('unit is on', flush=True)\nsignal.pause()\n"
    )
    command = local(stage, str(ROOT / "configs/quickstart.py"), tmp_path)
    command[1] = str(ROOT / command[1])
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "unit is on" not in process.stdout.readline():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert "saved" in out and "work unit 2" not in out
    assert (process.returncode, err) == (1, "stopped; the same command goes on\n")
