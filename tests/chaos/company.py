"""Faults among processes: two runs at once, a peer or a data worker that dies, other meshes."""

import signal
import subprocess

from tests import runs
from tests.chaos import stage as stages
from tests.chaos.stage import Row

PAIR = ("--num_processes=2", "--start_timeout=60")


def start_twice(stage):
    """A second run in a workdir is refused, and the first one doesn't notice."""
    workdir, lost = stage.fresh("twice"), []
    first = stage.start(workdir)
    stages.wait_for_step(first, workdir, 20)
    second = stage.start(workdir)
    out, _ = second.communicate(timeout=120)
    if second.returncode != 1 or "is in use by process" not in out:
        lost.append(f"the second: status {second.returncode}: {out[-300:]}")
    first.communicate(timeout=300)
    lost += stage.lost(workdir)
    return Row("two runs in a workdir", 1, "the second is refused", tuple(lost))


def kill_worker(stage):
    """A worker process of the input is killed: one line, or the run goes on."""
    lost, tries = [], 1 if stage.quick else 4
    for _ in range(tries):
        workdir = stage.fresh("worker")
        step = int(stage.rng.integers(5, 200))
        process = stage.start(workdir, data__workers=2)
        stages.wait_for_step(process, workdir, step)
        found = children(process.pid)[-1:]
        for child in found:
            subprocess.run(["kill", "-KILL", child], check=False)
        lost += [] if found else ["no worker was found to be killed"]
        out, _ = process.communicate(timeout=300)
        if "Traceback" in out:
            lost.append(f"status {process.returncode}: {out[-300:]}")
        lost += stage.lost(workdir, data__workers=2)
    result = "one line or no end; the same command ends bit by bit the same"
    return Row("a data worker killed", tries, result, tuple(lost))


def children(pid):
    """Numbers of a process's children that run Python, as text."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "spawn_main"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def kill_peer(stage):
    """One of two processes is killed: the other ends, too, and both go on."""
    workdir, lost, tries = stage.fresh("pair"), [], 1 if stage.quick else 3
    for _ in range(tries):
        pair = start_pair(stage, workdir)
        some = stages.steps(workdir) + int(stage.rng.integers(5, 60))
        stages.wait_for_step(pair[0], workdir, some)
        pair[int(stage.rng.integers(2))].send_signal(signal.SIGKILL)
        for process in pair:
            process.communicate(timeout=300)
    for process in (pair := start_pair(stage, workdir)):
        out, _ = process.communicate(timeout=300)
        if process.returncode:
            lost.append(f"status {process.returncode}: {out[-300:]}")
    lost += stage.lost(workdir, exact=False)
    result = "both end, both go on, sums in another order"
    return Row("one of two processes killed", tries, result, tuple(lost))


def start_pair(stage, workdir):
    """The run as two processes of one device each."""
    port = runs.free_port()
    places = [
        (f"--coordinator=localhost:{port}", f"--process_id={i}") for i in range(2)
    ]
    return [stage.start(workdir, *PAIR, *place) for place in places]


def change_devices(stage):
    """Stopped and continued on other numbers of devices and other meshes."""
    meshes = [(8, {}), (4, {}), (1, {}), (8, dict(mesh__data=2, mesh__fsdp=4))]
    workdir, lost = stage.fresh("elastic"), []
    for devices, mesh in meshes[: 2 if stage.quick else None]:
        process = stage.start(workdir, devices=devices, **mesh)
        some = stages.steps(workdir) + int(stage.rng.integers(20, 70))
        stages.wait_for_step(process, workdir, some)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
        if process.returncode:
            lost.append(f"{devices} devices: {out[-300:]}")
    lost += stage.lost(workdir, exact=False)
    said = ", ".join(str(devices) for devices, _ in meshes)
    result = f"on {said} devices (the last 2x4), then 1: sums in another order"
    return Row("other devices", len(meshes), result, tuple(lost))
