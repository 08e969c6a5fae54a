"""What two processes with workers are fed with, killed and started again: every image."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax.data import mixture

BATCH, STEPS, IMAGES = 16, 40, 1024
LOGGED = """
import json, sys
from vit_ssl_jax import command, step, train
log, put = open(sys.argv.pop(1), "a"), step.put_batch
def logged(batch, mesh):
    print(json.dumps(batch["id"].tolist()), file=log, flush=True)
    return put(batch, mesh)
step.put_batch = logged
command.start(train.train, several=True, config="", workdir="")
"""


def start(folder, name, port):
    """Two processes of a run, each with two workers, whose ids go to NAME-I.log."""
    changes = runs.SMALL | {"data.workers": 2, "steps": STEPS, "checkpoint_every": 10}
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-c", LOGGED, folder / f"{name}-{i}.log"),
                *("--config=configs/quickstart.py:mae", f"--workdir={folder / 'run'}"),
                *(f"--coordinator=localhost:{port}", "--num_processes=2"),
                *(f"--process_id={i}", "--start_timeout=60", *flags),
            ],
            cwd=runs.ROOT,
            env=runs.environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def read_ids(folder, name):
    """Ids of the steps that both processes have logged: `[steps B]`."""
    logs = [(folder / f"{name}-{i}.log").read_text().splitlines() for i in range(2)]
    both = min(map(len, logs))
    return np.hstack([np.array([json.loads(x) for x in log[:both]]) for log in logs])


@pytest.mark.slow  # ~ 40 s
def test_ids_are_those_of_their_steps_after_a_kill(tmp_path):
    order = mixture.order_of(IMAGES, (), seed=0)
    wanted = np.array([order[i] for i in range(STEPS * BATCH)]).reshape(STEPS, BATCH)
    first = start(tmp_path, "first", runs.free_port())
    line = next(x for x in first[0].stdout if x.startswith("step 25/"))
    for process in first:
        process.send_signal(signal.SIGKILL)
    for process in first:
        process.communicate(timeout=60)
    ids = read_ids(tmp_path, "first")
    assert len(ids) >= 25, line
    np.testing.assert_array_equal(ids, wanted[: len(ids)])

    again = start(tmp_path, "again", runs.free_port())
    outputs = [process.communicate(timeout=200)[0] for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    begun = int(re.search(r"starting at step (\d+)", outputs[0])[1])
    assert begun in (10, 20)
    np.testing.assert_array_equal(read_ids(tmp_path, "again"), wanted[begun:])
