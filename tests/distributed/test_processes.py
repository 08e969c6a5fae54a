"""The real command as two processes with two devices each."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import runs
from tests.runs import free_port
from vit_ssl_jax.workdir.metrics import read_metrics


def start(workdir, index, port, *flags, **changes):
    """Starts the train command as one of two processes with two devices each."""
    place = ("--num_processes=2", f"--process_id={index}", "--start_timeout=60")
    flags = (f"--coordinator=localhost:{port}", *place, *flags)
    return runs.command(workdir, *flags, devices=2, **changes)


def finish(*started):
    """Outputs of processes that must end well, and their status."""
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return outputs, [process.returncode for process in started]


def losses(workdir):
    rows = read_metrics(workdir, "train/loss")
    return np.array([row["train/loss"] for row in rows])


def test_two_processes_are_one_run_which_one_continues(tmp_path):
    """Of two, process 1 is told to stop; a single process goes on from what both saved."""
    changes = dict(steps=40, checkpoint_every=20, online__share=0.05)
    port = free_port()
    pair = [start(tmp_path / "two", i, port, **changes) for i in range(2)]
    alone = runs.command(tmp_path / "one", devices=4, **changes)
    first = iter(pair[0].stdout.readline, "")
    lines = [next(line for line in first if line.startswith("step 3/"))]
    pair[1].send_signal(signal.SIGTERM)
    (rest, other), codes = finish(*pair)
    assert codes == [0, 0], rest + other
    stopped = re.search(r"stopped at step (\d+), saved; the same command", rest)
    assert 3 <= int(stopped[1]) < 40, lines + [rest]
    assert not re.search(r"^step \d", other, re.MULTILINE), other  # one process writes

    (output, _), codes = finish(
        alone, runs.command(tmp_path / "two", devices=4, **changes)
    )
    assert codes == [0, 0], output
    assert len(losses(tmp_path / "one")) == 40
    np.testing.assert_allclose(
        losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5
    )


@pytest.mark.slow  # ~ 25 s
def test_two_processes_leave_out_the_steps_that_one_does(tmp_path):
    changes = dict(steps=60, spike__policy="skip", spike__deviations=0.5)
    changes |= dict(nonfinite__policy="skip", spike__most=1000)
    port = free_port()
    pair = [start(tmp_path / "two", i, port, **changes) for i in range(2)]
    outputs, codes = finish(*pair)
    assert codes == [0, 0], outputs
    (output,), codes = finish(runs.command(tmp_path / "one", devices=4, **changes))
    assert codes == [0], output
    two, one = (runs.metrics(tmp_path / name) for name in ("two", "one"))
    left_out = [row["train/skipped"] for row in one]
    assert left_out[31] == 0 < left_out[-1] < 20
    assert [row["train/skipped"] for row in two] == left_out
    np.testing.assert_allclose(
        losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5
    )


@pytest.mark.slow  # ~ 25 s
def test_two_processes_have_a_set_on_their_devices(tmp_path):
    """In spans of steps, with the losses and pictures of one process with all devices."""
    changes = dict(steps=20, data__device_cache=True, log_every=4)
    changes |= dict(pictures__every_epochs=10 / 64, pictures__count=3)
    port = free_port()
    both = [start(tmp_path / "two", i, port, **changes) for i in range(2)]
    both.append(runs.command(tmp_path / "one", devices=4, **changes))
    outputs, codes = finish(*both)
    assert codes == [0, 0, 0], outputs
    ours, theirs = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert len(ours) == 5
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for step in (0, 10, 20):
        file = f"pictures/{step}/mae.png"
        ours, theirs = (Image.open(tmp_path / n / file) for n in ("two", "one"))
        apart = np.asarray(ours, np.int32) - np.asarray(theirs, np.int32)
        assert np.abs(apart).max() <= 2, step


@pytest.mark.slow  # ~ 15 s
def test_tensor_parallelism_beyond_a_process_is_refused(tmp_path):
    port, mesh = free_port(), dict(mesh__data=1, mesh__tensor=4)
    changes = {"vit__variant": "2x32x4/8", **mesh}
    pair = [start(tmp_path, i, port, **changes) for i in range(2)]
    outputs, codes = finish(*pair)
    assert codes == [1, 1], outputs
    assert all("4 doesn't divide the 2 devices of a process" in x for x in outputs)


def test_processes_with_other_configs_are_refused_before_any_work(tmp_path):
    port = free_port()
    pair = [start(tmp_path, i, port, seed=i) for i in range(2)]
    outputs, codes = finish(*pair)
    assert codes == [1, 1]
    for output in outputs:
        assert "differs from process 0" in output
        assert "config.seed 1, not 0" in output
    assert not list(tmp_path.iterdir())


def run_script(text, *arguments, devices=(1, 1)):
    """Starts a script as two processes: their number, a port and `arguments` follow."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-c", text, str(index), port, *map(str, arguments)],
            env=runs.environment(count),
            cwd=runs.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, count in enumerate(devices)
    ]


AGREE = """
import sys
from etils import epath
from vit_ssl_jax.distributed import clusters, processes
from vit_ssl_jax.errors import UserError
index, port, folder = int(sys.argv[1]), sys.argv[2], epath.Path(sys.argv[3])
processes.VISIBLE_SECONDS = 1
processes.start(clusters.Group(f"localhost:{port}", 2, index), {}, 60)
for step in (1, 2):
    try:
        if step == 1:
            processes.check_shared(folder / str(index))
        with processes.together():
            if index == 1:
                raise UserError("my disk is full")
    except UserError as error:
        print(error, flush=True)
"""


def test_what_fails_on_one_process_fails_on_all(tmp_path):
    """Folders that aren't the same, and an error of process 1 alone."""
    for index in range(2):
        (tmp_path / str(index)).mkdir()
    outputs, codes = finish(*run_script(AGREE, tmp_path))
    assert codes == [0, 0]
    for output in outputs:
        assert "isn't the same folder here as for process 0" in output
        assert "my disk is full" in output


FAIL = """
import sys
from vit_ssl_jax import command

def run(config, failing):
    import jax
    from vit_ssl_jax.distributed import processes
    from vit_ssl_jax.errors import UserError
    processes.wait_for_all("begin")
    if jax.process_index() == int(failing):
        raise UserError("my disk is full")
    processes.wait_for_all("never")

_, index, port, failing = sys.argv
sys.argv = ["fail", f"--coordinator=localhost:{port}", "--num_processes=2",
            f"--process_id={index}", "--config=configs/quickstart.py",
            f"--failing={failing}"]
command.start(run, several=True, config="Recipe.", failing="The process that fails.")
"""


@pytest.mark.slow  # ~ 15 s each
@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_fails_in_mid_run_says_why_and_ends_the_other(failing):
    outputs, codes = finish(*run_script(FAIL, failing))
    assert outputs[failing].strip().splitlines()[-1] == "error: my disk is full"
    assert codes[failing] == 1
    assert codes[1 - failing] != 0


@pytest.mark.slow  # ~ 10 s
def test_processes_with_other_numbers_of_devices_are_refused():
    outputs, codes = finish(*run_script(FAIL, 0, devices=(1, 2)))
    assert codes == [1, 1], outputs
    for output in outputs:
        assert "equally many devices: process 0 has 1, process 1 has 2" in output


RESTORE = """
import sys
import jax
from tests.workdir.test_checkpoint import make_state, shapes
from vit_ssl_jax.distributed import clusters, processes
from vit_ssl_jax.workdir import checkpoint
index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
processes.start(clusters.Group(f"localhost:{port}", 2, index), {}, 60)
like = shapes(make_state(1), (2, 1, 1))
checkpoints = checkpoint.Checkpoints(folder, keep=3)
for step in (1, 2):
    layout = jax.tree.map(lambda x: x.sharding, like)
    state = jax.jit(lambda: make_state(step), out_shardings=layout)()
    checkpoints.save(state, 10.0 * step)
checkpoints.close()

read = checkpoint.read
def read_without_the_newest(folder, like):
    if folder.name == "2":
        raise OSError("the disk has a bad block")
    return read(folder, like)

if index == 1:
    checkpoint.read = read_without_the_newest
state, seconds = checkpoint.Checkpoints(folder, keep=3).restore(like)
print("restored", int(state.step), seconds, flush=True)
"""


@pytest.mark.slow  # ~ 15 s
def test_a_checkpoint_that_one_process_cannot_read_is_left_by_all(tmp_path):
    outputs, codes = finish(*run_script(RESTORE, tmp_path))
    assert codes == [0, 0], outputs
    for output, reason in zip(outputs, ("says another process", "has a bad block")):
        assert "restored 1 10.0" in output
        assert reason in output
    assert (tmp_path / "damaged-2").exists()


@pytest.mark.slow  # ~ 60 s
def test_evaluators_of_two_processes_find_what_one_does(tmp_path):
    """k-NN and the objective, health and online probes."""
    changes = dict(config="pretext_cpu", steps=12, summary=True)
    changes |= dict(health__every=4, online__share=0.05, evals__knn__every_epochs=0.0)
    splits = dict(pretext__split="test", knn__bank="train", knn__queries="test")
    changes |= {f"evals__{key}": split for key, split in splits.items()}
    changes |= dict(evals__linear__every_epochs=None)
    port = free_port()
    pair = [start(tmp_path / "two", i, port, **changes) for i in range(2)]
    outputs, codes = finish(*pair)
    assert codes == [0, 0], outputs
    output, codes = finish(runs.command(tmp_path / "one", devices=4, **changes))
    assert codes == [0], output
    two, one = (
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("two", "one")
    )
    for found in (two, one):
        del found["seconds"]
    assert two.keys() == one.keys()
    for name, rows in one.items():
        for row, value in rows.items():
            np.testing.assert_allclose(
                *(
                    np.array(list(x.values()) if isinstance(x, dict) else x)
                    for x in (two[name][row], value)
                ),
                rtol=1e-4,
            )
    rows = [read_metrics(tmp_path / name, "") for name in ("two", "one")]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for a, b in zip(*rows):
        for name in a:
            if name.startswith(("train/", "ssl/", "online/")):
                np.testing.assert_allclose(a[name], b[name], rtol=1e-3, err_msg=name)


@pytest.mark.slow  # ~ 30 s
def test_a_process_that_dies_ends_the_others(tmp_path):
    port = free_port()
    pair = [start(tmp_path, i, port, steps=4000) for i in range(2)]
    next(line for line in iter(pair[0].stdout.readline, "") if "step 5/" in line)
    pair[1].kill()
    (rest, _), codes = finish(*pair)
    if codes[0] == -signal.SIGABRT:  # its step only waited: jax missed the heartbeats
        assert "JAX distributed service detected fatal errors" in rest
        return
    assert codes[0] == 1, rest
    assert rest.strip().splitlines()[-1].startswith("error: this process can't go on")
    assert "goes on from the last checkpoint" in rest
