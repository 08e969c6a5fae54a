"""The check that `main` makes: once, kept, and what follows from a wrong kernel."""

import json

import jax
import pytest

from tests import runs
from vit_ssl_jax import build
from vit_ssl_jax.doctor import fused_blocks, once
from vit_ssl_jax.kernels import attention, mlp


@pytest.fixture
def accelerator(interpreted, tmp_path):
    """A machine whose blocks are fused, and its user's cache; returns `monkeypatch`."""
    interpreted.setattr(jax, "default_backend", lambda: "tpu")
    interpreted.setenv("XDG_CACHE_HOME", str(tmp_path))
    return interpreted


def make(one, **changes):
    """A small run in bfloat16, and its config."""
    config = runs.small("mae", vit__dtype="bfloat16", **changes)
    return config, build.make_run(config, one)


def kernel_of(run):
    """How the blocks of a run are told to run."""
    return run.encoder.style.kernels


def test_right_kernels_are_checked_once(accelerator, one, tmp_path):
    config, run = make(one)
    lines = []
    assert once.check_kernels(config, run, lines.append) is run
    begun, line = lines
    assert begun.startswith("kernels: compared with plain blocks, once")
    assert line.startswith("kernels: as exact as plain blocks (")
    (file,) = (tmp_path / "vit_ssl_jax" / "kernels").iterdir()
    assert json.loads(file.read_text())["faults"] == []
    accelerator.setattr(attention, "LOG2E", 0.0)  # nobody looks again
    assert once.check_kernels(config, run, lines.append) is run
    assert lines == [begun, line]
    # Another shape is another question; what can't be read isn't known.
    other, _ = make(one, vit__variant="2x32x2/4")
    assert once.describe_machine(other, run) != once.describe_machine(config, run)
    file.write_text("{")
    assert once.recall(file) is None


def test_wrong_kernels_are_told_and_left(accelerator, one):
    accelerator.setattr(attention, "LOG2E", 1.1 * attention.LOG2E)
    config, run = make(one)
    before, lines = config.to_json(), []
    for _ in range(2):  # found, and remembered
        new = once.check_kernels(config, run, lines.append)
        assert kernel_of(new) == "plain"
        assert new.mesh == run.mesh and new.steps == run.steps
    assert config.to_json() == before
    _, first, second = lines
    assert first == second and "\n" not in first
    assert first.startswith("kernels: the fused form differs from the plain one by ")
    assert "(allowed 0.0" in first
    end = " on cpu: going on with config.vit.kernels=plain; "
    assert f"{end}python -m vit_ssl_jax.doctor --config=... says more" in first
    config, run = make(one, vit__kernels="fused")  # what is chosen is kept
    assert once.check_kernels(config, run, lines.append) is run
    assert " on cpu: config.vit.kernels=fused keeps them; " in lines[-1]


def test_kernels_that_fail_are_left_for_now(accelerator, one, tmp_path):
    """What they fail of may be gone the next time."""

    def wrong(*refs, style):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    accelerator.setattr(mlp, "_backward", wrong)
    config, run = make(one)
    lines = []
    assert kernel_of(once.check_kernels(config, run, lines.append)) == "plain"
    assert "fails (RuntimeError: RESOURCE_EXHAUSTED: out of memory)" in lines[1]
    assert not (tmp_path / "vit_ssl_jax").exists()


def test_a_cpu_and_plain_blocks_are_left_alone(interpreted, one, tmp_path):
    interpreted.setenv("XDG_CACHE_HOME", str(tmp_path))
    config, run = make(one)
    lines = []
    assert once.check_kernels(config, run, lines.append) is run
    interpreted.setattr(jax, "default_backend", lambda: "tpu")
    config.vit.kernels = "plain"
    assert once.check_kernels(config, run, lines.append) is run
    assert lines == [] and list(tmp_path.iterdir()) == []


def test_a_cache_that_cant_be_written_is_no_error(tmp_path):
    (tmp_path / "vit_ssl_jax").write_text("a file in its place")
    file = tmp_path / "vit_ssl_jax" / "kernels" / "1.json"
    once.remember(file, dict(faults=[]))
    assert once.recall(file) is None


def test_a_check_that_cant_be_made_stops_nothing(accelerator, one, monkeypatch):
    """The plain form fails, too: for want of memory, say."""

    def fail(*arrays):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nallocations: ...")

    monkeypatch.setattr(fused_blocks, "best", fail)
    config, run = make(one)
    lines = []
    assert once.check_kernels(config, run, lines.append) is run
    text = "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert lines[1:] == [f"kernels: not checked ({text})"]
