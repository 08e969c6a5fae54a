"""Ends of a process: kills at random and inside of saves, signals once and twice."""

import signal
import time

from tests.chaos import stage as stages
from tests.chaos.stage import Row


def kill_at_random(stage):
    """SIGKILL at a moment drawn from a run's whole time, imports too."""
    count = max(1, stage.kills // 2)

    def moment(process, workdir):
        time.sleep(stage.rng.uniform(0, 14))

    return kill(stage, "SIGKILL at random", count, moment)


def kill_in_saves(stage):
    """SIGKILL while a checkpoint is being written."""
    count = max(1, stage.kills - stage.kills // 2)

    def moment(process, workdir):
        first = stages.steps(workdir)
        some = first + stage.rng.integers(0, 100)
        stages.wait_for_step(process, workdir, some)
        part = "checkpoints/*tmp*"
        stages.wait_for(process, lambda: any(workdir.glob(part)))
        time.sleep(stage.rng.uniform(0, 0.02))

    return kill(stage, "SIGKILL inside of a save", count, moment)


def kill(stage, fault, count, moment):
    """Kills runs so often at a moment, the same run again and again until it is finished."""
    lost, finished, hit = [], 0, 0
    workdir = stage.fresh("killed")
    while hit < count:
        process = stage.start(workdir)
        moment(process, workdir)
        process.kill()
        out, _ = process.communicate()
        if process.returncode == -signal.SIGKILL:
            hit += 1
            continue
        if process.returncode:
            lost.append(f"status {process.returncode}: {out[-300:]}")
            break
        lost += stage.lost(workdir)
        finished += 1
        workdir = stage.fresh("killed")
    lost += stage.lost(workdir)
    result = f"{finished + 1} runs to their end, bit by bit as the one without faults"
    return Row(fault, hit, result, tuple(lost))


def start_and_wait(stage, name):
    """The workdir and the process of a new run that has come to a step drawn at random."""
    workdir = stage.fresh(name)
    step = int(stage.rng.integers(1, stages.STEPS - 60))
    process = stage.start(workdir)
    stages.wait_for_step(process, workdir, step)
    return workdir, process


def ask_to_stop(stage):
    """SIGTERM and Ctrl-C once: saved, and the same command goes on."""
    lost, tries = [], 1 if stage.quick else 4
    for number in (signal.SIGTERM, signal.SIGINT):
        for _ in range(tries):
            workdir, process = start_and_wait(stage, "asked")
            process.send_signal(number)
            out, _ = process.communicate(timeout=120)
            if process.returncode or "the same command continues" not in out:
                lost.append(f"{number.name}: status {process.returncode}: {out[-300:]}")
            lost += stage.lost(workdir)
    return Row(
        "SIGTERM, Ctrl-C once", 2 * tries, "saved, status 0, goes on", tuple(lost)
    )


def insist(stage):
    """SIGTERM and Ctrl-C twice: ends at once, and what was saved is whole."""
    lost, tries = [], 1 if stage.quick else 3
    for number in (signal.SIGTERM, signal.SIGINT):
        for _ in range(tries):
            workdir, process = start_and_wait(stage, "insisted")
            process.send_signal(number)
            time.sleep(stage.rng.uniform(0, 0.05))
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
            if "Traceback" in out:
                lost.append(f"{number.name} twice: {out[-300:]}")
            lost += stage.lost(workdir)
    result = "ends, no traceback, goes on from the last whole checkpoint"
    return Row("SIGTERM, Ctrl-C twice", 2 * tries, result, tuple(lost))
