"""One run at a time in a workdir: refused, taken over, given back."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from tests import runs
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import lock

HOLDER = """
import sys, time
from etils import epath
from vit_ssl_jax.workdir import lock
with lock.hold(epath.Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Signs of life every tenth of a second."""
    for name, seconds in dict(BEAT=0.1, DEAD=0.6, REQUEUE=1.5, TOGETHER=0.1).items():
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the workdir."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=runs.ROOT,
        env=runs.environment(1),
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def elsewhere(workdir, **facts):
    """The file of a process of another machine."""
    other = lock.identity() | dict(host="node7", place="another boot", pid=41) | facts
    (workdir / lock.NAME).write_text(json.dumps(other))
    return other


def take(workdir):
    """What is said while the workdir is taken, and given back."""
    said = []
    with lock.hold(epath.Path(workdir), said.append) as held:
        assert json.loads((workdir / lock.NAME).read_text())["pid"]
        held.check()
    assert not (workdir / lock.NAME).exists()
    return "\n".join(said)


def test_a_second_process_is_refused_at_once_and_the_first_goes_on(tmp_path, holder):
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on"):
        take(tmp_path)
    assert time.monotonic() - begun < 0.5
    assert holder.poll() is None and (tmp_path / lock.NAME).exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_one_is_taken_over_at_once_and_a_stopped_one_is_not(
    tmp_path, holder, how
):
    holder.send_signal(how)
    if how == signal.SIGSTOP:  # it lives
        with pytest.raises(UserError, match="in use"):
            take(tmp_path)
        return
    while lock.started(holder.pid):  # a zombie by then, which nobody has waited for
        time.sleep(0.01)
    assert "left behind by process" in take(tmp_path)


def test_another_machines_dead_process_is_known_by_its_silence(tmp_path):
    elsewhere(tmp_path)
    assert "is process 41 on node7" in take(tmp_path)


def test_another_machines_living_process_is_known_by_its_signs(tmp_path):
    other, end = elsewhere(tmp_path), threading.Event()

    def live():
        while not end.wait(0.05):
            other["beats"] += 1
            lock.replace(tmp_path / lock.NAME, json.dumps(other))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(UserError, match="in use by process 41 on node7"):
            take(tmp_path)
    finally:
        end.set()
        thread.join()


def test_a_requeued_job_waits_for_its_first_turn(tmp_path, holder, monkeypatch):
    """The same number of a job, and its first turn still at work: it ends in time."""
    other = json.loads((tmp_path / lock.NAME).read_text())
    (tmp_path / lock.NAME).write_text(json.dumps(other | dict(job="77")))
    monkeypatch.setenv(lock.JOB, "77")
    threading.Timer(0.5, holder.kill).start()
    assert "waiting up to" in take(tmp_path)


def test_whoever_is_taken_over_stops_writing(tmp_path):
    with lock.hold(epath.Path(tmp_path), print) as held:
        elsewhere(tmp_path)
        held._thread.join(5.0)
        with pytest.raises(UserError, match="was taken over by process 41 on node7"):
            held.check()
    assert (tmp_path / lock.NAME).exists()  # the other's


def test_two_that_begin_at_once_never_both_run(tmp_path):
    """Of a workdir that a dead process left behind."""
    elsewhere(tmp_path, place=lock.place(), started="1")
    ready, running, most = threading.Barrier(4), [], []

    def begin():
        ready.wait()
        try:
            with lock.hold(epath.Path(tmp_path), lambda line: None) as held:
                running.append(1)
                time.sleep(0.5)
                try:
                    held.check()
                    most.append(1)
                except UserError:
                    pass
        except UserError:
            pass

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"token": 1}'])
def test_a_file_that_says_nothing_is_nobodys(tmp_path, text):
    (tmp_path / lock.NAME).write_text(text)
    assert take(tmp_path) == ""  # neither refused nor waited for


@pytest.mark.parametrize("made_again", [False, True])
def test_a_workdir_that_is_deleted_is_told_at_the_next_save(tmp_path, made_again):
    workdir = epath.Path(tmp_path / "run")
    workdir.mkdir()
    with lock.hold(workdir, print) as held:
        held.check()
        shutil.rmtree(workdir)
        if made_again:  # as a save does that is on its way
            workdir.mkdir()
            time.sleep(0.3)  # and a sign of life doesn't hide it
        with pytest.raises(UserError, match="run was moved or deleted while a run"):
            held.check()
    assert not (workdir / lock.NAME).exists()
