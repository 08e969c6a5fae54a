"""The command from the outside: stopped, killed, run again; bad input."""

import pathlib
import signal
import time

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import train
from vit_ssl_jax.errors import UserError

STEPS = 160


def wait_for_step(process, workdir, step):
    """Waits until `step` is logged."""
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        logged = runs.metrics(workdir)
        if logged and logged[-1]["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


def check_stopped_run(tmp_path, seed, **changes):
    """Stopped by SIGTERM, killed by SIGKILL and run again equals never stopped.

    What is stopped has its input from worker processes, what isn't from threads.
    """
    changes |= dict(steps=STEPS, data__stream=2, data__pixels="near")
    straight = runs.command(tmp_path / "straight", **changes)
    out, _ = straight.communicate()
    assert straight.returncode == 0, out

    changes |= dict(data__workers=2)
    first, second = sorted(np.random.default_rng(seed).integers(15, STEPS - 60, 2))
    stopped = runs.command(tmp_path / "again", **changes)
    wait_for_step(stopped, tmp_path / "again", first)
    with pytest.raises(UserError, match=f"in use by process {stopped.pid} on"):
        train.train(runs.small(), tmp_path / "again")
    stopped.send_signal(signal.SIGTERM)
    out, _ = stopped.communicate()
    assert stopped.returncode == 0, out
    assert "the same command continues" in out

    killed = runs.command(tmp_path / "again", **changes)
    wait_for_step(killed, tmp_path / "again", second + 30)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    last = runs.command(tmp_path / "again", **changes)
    out, _ = last.communicate()
    assert last.returncode == 0, out
    assert "starting at step" in out

    want, got = (runs.metrics(tmp_path / name) for name in ("straight", "again"))
    assert [m["step"] for m in got] == list(range(1, STEPS + 1))
    assert [m["train/loss"] for m in got] == [m["train/loss"] for m in want]
    want, got = (runs.weights(tmp_path / name) for name in ("straight", "again"))
    assert want.keys() == got.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_a_stopped_and_killed_run_ends_bit_identical(tmp_path):
    check_stopped_run(tmp_path, seed=0)


@pytest.mark.slow
def test_a_stopped_and_killed_run_ends_bit_identical_on_a_mesh(tmp_path):
    changes = dict(mesh__data=1, mesh__fsdp=2, mesh__tensor=2)
    check_stopped_run(tmp_path, seed=1, devices=4, **changes)


@pytest.mark.parametrize("library", ["jaxlib", "tensorstore"])
def test_ctrl_c_while_libraries_are_loaded_is_one_line(tmp_path, library):
    """Which swallow an exception, or print fifty lines of it."""
    process, deadline = runs.command(tmp_path), time.time() + 60
    loaded = pathlib.Path(f"/proc/{process.pid}/maps")
    while library not in loaded.read_text() and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.splitlines()[-1].startswith("interrupted; the same command goes on")
    assert len(out.splitlines()) < 3 and "Traceback" not in out


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.optim.lrr=1", "no key optim.lrr. Did you mean optim.lr?"),
        ("--config.optim.lr=fast", "could not convert string to float: 'fast"),
        ("--config.batch_size=12.5", "invalid literal for int()"),
        (
            "--config=configs/nope.py",
            "doesn't exist; did you mean",
        ),
        ("--config=configs/quickstart.py:dino", "dino: choose one of ijepa, mae"),
        ("--config.data.split=nope", "choose train or test"),
        ("--workdir=/proc/nowhere", "can't be written"),
    ],
)
def test_bad_input_is_one_message_and_no_traceback(tmp_path, flag, said):
    process = runs.subprocess.run(
        [
            *(runs.sys.executable, "-m", "vit_ssl_jax.main"),
            "--config=configs/quickstart.py",
            f"--workdir={tmp_path}",
            flag,
        ],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode != 0
    assert said in process.stderr
    assert process.stderr.startswith("error: ")
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.glob("checkpoints/*"))
