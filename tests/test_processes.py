"""Several processes: the roll call, and the real command as two of them."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import clusters, processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.writer import read_metrics


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def about(index, count=2, host="", **facts):
    facts = {"jax": "1.0", "vit_ssl_jax": "2.0", "python": "3.11"} | facts
    return dict(index=index, count=count, host=host or f"host{index}", facts=facts)


def call_roll(*others, seconds=10.0, count=2, hosts=(), said=None):
    """The roll call among threads: what each raised, by process; process 0 first."""
    coordinator, problems = f"localhost:{free_port()}", {}
    said = [] if said is None else said

    def take_part(call, number, me):
        group = clusters.Group(coordinator, me["count"], me["index"], hosts)
        try:
            deadline = time.monotonic() + seconds
            call(group, me, deadline, seconds, said.append)
            problems[number] = ""
        except UserError as error:
            problems[number] = str(error)

    parts = [(processes.take_roll, 0, about(0, count))]
    parts += [(processes.answer_roll, i, me) for i, me in enumerate(others, 1)]
    threads = [threading.Thread(target=take_part, args=part) for part in parts]
    for thread in reversed(threads):  # process 0 comes last
        thread.start()
    for thread in threads:
        thread.join(seconds + 20)
    return [problems[i] for i in range(len(parts))]


def test_all_there_and_alike_begin():
    assert call_roll(about(1, 3), about(2, 3), count=3) == ["", "", ""]


def test_a_missing_process_ends_all_in_time_and_is_named():
    begun = time.monotonic()
    hosts = ("hosta", "hostb", "hostc")
    first, second = call_roll(about(2, 3), seconds=1.5, count=3, hosts=hosts)
    assert time.monotonic() - begun < 10
    assert first == second
    assert re.match(r"process 1 of 3 \(hostb\) did not come within 1.5 s", first)
    assert "localhost:" in first
    assert "There: 0 on host0, 2 on host2" in first
    assert "jax 1.0, vit_ssl_jax 2.0, python 3.11" in first
    assert "--start_timeout" in first


def test_processes_that_wait_say_for_whom(monkeypatch):
    monkeypatch.setattr(processes, "REMIND_SECONDS", 0.2)
    said = []
    call_roll(seconds=0.7, said=said)
    assert said[0].startswith("waiting: process 1 of 2 hasn't come yet to localhost:")


def test_a_process_alone_says_where_it_looked():
    group = clusters.Group(f"localhost:{free_port()}", 2, 1)
    with pytest.raises(
        UserError, match="process 1 on host1 did not reach process 0 at"
    ):
        processes.answer_roll(group, about(1), time.monotonic() + 0.5, 0.5, print)


def test_other_versions_and_configs_are_refused_by_name():
    other = about(1, jax="1.1", **{"config.seed": 3})
    first, second = call_roll(other)
    assert first == second
    assert "process 1 on host1 differs from process 0 on host0" in first
    assert "config.seed 3, not None; jax 1.1, not 1.0" in first


def test_one_number_twice_is_refused():
    first, *others = call_roll(about(1, 3), about(1, 3, "host9"), count=3)
    assert "two processes say that they are --process_id=1" in first
    assert "host1" in first
    assert "host9" in first
    assert others == [first, first]


def test_other_counts_are_refused():
    first, _ = call_roll(about(1, 4))
    assert "has --num_processes=4, process 0 2" in first


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        group = clusters.Group(f"localhost:{port}", 2, 0)
        with pytest.raises(UserError, match=f"can't listen at port {port}"):
            processes.take_roll(group, about(0), time.monotonic() + 5, 5, print)


def test_strangers_at_the_port_are_ignored():
    coordinator = f"localhost:{free_port()}"
    group = [clusters.Group(coordinator, 2, i) for i in range(2)]
    deadline = time.monotonic() + 20
    server = threading.Thread(
        target=processes.take_roll, args=(group[0], about(0), deadline, 20, print)
    )
    server.start()
    host, port = coordinator.split(":")
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\n"):
        for _ in range(50):
            try:
                link = socket.create_connection((host, int(port)))
                break
            except OSError:
                time.sleep(0.1)
        with link:
            link.sendall(text)
    processes.answer_roll(group[1], about(1), deadline, 20, print)
    server.join(20)
    assert not server.is_alive()


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
    assert "step" not in other, other  # one process writes

    (output, _), codes = finish(
        alone, runs.command(tmp_path / "two", devices=4, **changes)
    )
    assert codes == [0, 0], output
    assert len(losses(tmp_path / "one")) == 40
    np.testing.assert_allclose(
        losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5
    )


def test_processes_with_other_configs_are_refused_before_any_work(tmp_path):
    port = free_port()
    pair = [start(tmp_path, i, port, seed=i) for i in range(2)]
    outputs, codes = finish(*pair)
    assert codes == [1, 1]
    for output in outputs:
        assert "differs from process 0" in output
        assert "config.seed 1, not 0" in output
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, time
from etils import epath
from vit_ssl_jax import clusters, processes
from vit_ssl_jax.errors import UserError
index, port, folder = int(sys.argv[1]), sys.argv[2], epath.Path(sys.argv[3])
processes.VISIBLE_SECONDS = 1
group = clusters.Group(f"localhost:{port}", 2, index)
processes.start(group, {}, 60)
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
    port = free_port()
    for index in range(2):
        (tmp_path / str(index)).mkdir()
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(index), str(port), str(tmp_path)],
            env=runs.environment(1),
            cwd=runs.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs, codes = finish(*pair)
    assert codes == [0, 0]
    for output in outputs:
        assert "isn't the same folder here as for process 0" in output
        assert "my disk is full" in output


@pytest.mark.slow  # ~ 60 s
@pytest.mark.parametrize("config", ["quickstart", "pretext_cpu"])
def test_evaluators_of_two_processes_find_what_one_does(tmp_path, config):
    """Quickstart has k-NN and a linear probe, pretext_cpu k-NN and the objective."""
    changes = dict(config=config, steps=12, summary=True)
    changes |= dict(health__every=4, online__share=0.05, evals__knn__every_epochs=0.0)
    if config == "quickstart":
        changes |= dict(evals__linear__every_epochs=0.0)
    else:
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
    assert codes[0] == 1
    assert rest.strip().splitlines()[-1].startswith("error: this process can't go on")
    assert "goes on from the last checkpoint" in rest
