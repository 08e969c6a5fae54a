"""The compilation cache in two processes; programs that don't grow with depth."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, step
from vit_ssl_jax.xla import cache


@pytest.fixture
def settings(monkeypatch):
    """jax's settings as a user has them, and as they were afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    for name in names:
        monkeypatch.delenv(name.upper(), raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def train(workdir, cache):
    """The console of a short run whose programs are kept in `cache`."""
    changes = {"steps": 1, "checkpoint_every": 1000, "log_every": 1}
    flags = [f"--config.{k}={v}" for k, v in (runs.SMALL | changes).items()]
    command = [sys.executable, "-m", "vit_ssl_jax.main", f"--workdir={workdir}"]
    variables = runs.environment(1) | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [*command, "--config=configs/quickstart.py:mae", *flags],
        cwd=runs.ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_second_process_finds_what_the_first_compiled(tmp_path):
    first = train(tmp_path / "a", tmp_path / "cache")
    assert "compilation cache: miss" in first
    assert any((tmp_path / "cache").iterdir())
    second = train(tmp_path / "b", tmp_path / "cache")
    assert "compilation cache: hit" in second
    assert loss(first) == loss(second)  # what was loaded is what was compiled


def loss(console):
    """The line of step 1 up to its loss."""
    (line,) = [x for x in console.splitlines() if x.startswith("step 1/1")]
    return line.split("  ")[:2]


def test_a_cpu_keeps_nothing_unless_told_to(settings, tmp_path):
    assert jax.default_backend() == "cpu"
    cache.use_cache()
    assert settings.jax_compilation_cache_dir is None
    with cache.CacheWatch() as watch:
        jax.jit(lambda x: x + 41.5)(1.0)
    assert watch.outcome == "" and watch.remark == ""


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_others_keep_long_compilations_in_the_users_cache(
    settings, monkeypatch, tmp_path, platform
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.use_cache()
    folder = pathlib.Path(settings.jax_compilation_cache_dir)
    assert folder == tmp_path / "vit_ssl_jax" / "xla"
    assert settings.jax_persistent_cache_min_compile_time_secs == 5.0


def test_a_folder_that_is_named_stays(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    settings.update("jax_compilation_cache_dir", str(tmp_path))
    cache.use_cache()
    assert settings.jax_compilation_cache_dir == str(tmp_path)


def test_the_cache_is_in_the_home_folder_otherwise(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home = os.path.expanduser("~")
    assert str(cache.cache_folder("xla")) == f"{home}/.cache/vit_ssl_jax/xla"


def lowered(method, depth, unroll=1):
    """Text of the train step's StableHLO for a ViT of `depth` blocks."""
    config = runs.small(method, vit__variant=f"{depth}x32x2/4", vit__unroll=unroll)
    program = build.make_run(config).program
    return step.lower(program).as_text()


@pytest.mark.parametrize("method", ["mae", "ijepa"])
def test_a_deeper_model_is_no_larger_a_program(method):
    """4 blocks against 12: as many lines, so tracing and compiling take as long."""
    shallow, deep = lowered(method, 4), lowered(method, 12)
    assert shallow != deep
    assert len(shallow.splitlines()) == len(deep.splitlines())
    assert abs(len(deep) - len(shallow)) < 0.02 * len(shallow)


def test_an_unrolled_model_is_a_larger_program():
    """So that the comparison above can tell."""
    assert len(lowered("mae", 12, 12)) > 1.1 * len(lowered("mae", 12))
