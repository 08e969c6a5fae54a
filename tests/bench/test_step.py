"""The figures of `bench step`, and its command with good and bad input."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build
from vit_ssl_jax.bench import report, step


@pytest.fixture(scope="module")
def found():
    """What is measured of a tiny step, with the state that it trains."""
    return report.measure(runs.small("mae"), rounds=3, twin=False)


def test_rates_fit_each_other(found):
    assert found["images_per_second"] * found["step_seconds"] == pytest.approx(16)
    low, high = found["step_seconds_low"], found["step_seconds_high"]
    assert 0 < low <= found["step_seconds"] <= high < 60
    assert found["compile_seconds"] > found["step_seconds"]


def test_flops_are_those_of_the_step_that_trains(found):
    config = runs.small("mae")
    assert found["model_flops_per_image"] * 16 == build.step_flops(config)


def test_memory_is_more_than_the_state_and_less_than_the_machine(found):
    state = build.make_run(runs.small("mae")).program.state
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert size < found["peak_memory_bytes"] < 1e12
    assert "resident" in found["peak_memory_of"]


def test_a_cpu_has_no_known_peak_and_says_so(found):
    assert found["share_of_peak"] is None
    assert "isn't known" in report.describe(found)


def test_share_of_peak_counts_all_devices():
    facts = dict(
        peak_flops=100e12,
        devices=4,
        model_flops_per_image=1e11,
        images_per_second=2000.0,
    )
    assert step.share_of_peak(facts) == 0.5


def test_every_call_is_one_step_of_training(monkeypatch):
    """By the program's own count of steps and its loss, which falls on one batch."""
    states, compile_step = [], jax.stages.Lowered.compile

    def spy(lowered):
        compiled = compile_step(lowered)

        def call(*args):
            out = compiled(*args)
            states.append((int(out[0].step), float(out[1]["train/loss"])))
            return out

        return call

    monkeypatch.setattr(jax.stages.Lowered, "compile", spy)
    config = runs.small("mae", optim__warmup_epochs=0.0)
    train, _ = step.prepare(config)
    for _ in range(10):
        train()
    steps, losses = zip(*states)
    assert steps == tuple(range(1, 11 + step.WARM_UP))
    assert losses[-1] < losses[0]


def test_random_images_fill_the_bytes():
    batch = step.random_batch(runs.small("mae"))
    image = batch["image"]
    assert image.dtype == np.uint8 and image.shape == (16, 32, 32, 3)
    assert image.min() == 0 and image.max() == 255 and 120 < image.mean() < 135


def bench(*arguments):
    """The command's finished process."""
    command = [sys.executable, "-m", "vit_ssl_jax.bench", *arguments]
    return subprocess.run(
        command,
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_command_prints_and_writes_the_same(tmp_path):
    out = tmp_path / "step.json"
    done = bench(
        "step",
        "--config=configs/quickstart.py:mae",
        "--config.vit.variant=2x32x2/8",
        "--config.batch_size=16",
        "--steps=3",
        f"--json={out}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert f"jax: {found['images_per_second']:.4g} images/s" in done.stdout
    assert found["rounds"] == 3 and found["twins"] == {}
    for word in ("trace", "compile", "peak memory", "share of peak"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "bench step --config"),
        (["step"], "give --config=configs/NAME.py"),
        (["step", "--config=configs/mae_vitb.py", "--steps=1"], "steps"),
        (["step", "--config=configs/mae_vitb.py", "--json=/no/x.json"], "--json"),
        (
            [
                "step",
                "--config=configs/rotation_vitb.py",
                "--twin",
            ],
            "--twin",
        ),
    ],
)
def test_bad_input_ends_with_one_line(arguments, said):
    done = bench(*arguments)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and said in last, done.stderr
