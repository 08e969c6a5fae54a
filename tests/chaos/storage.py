"""Faults of storage: damaged files of a checkpoint, disks that are full, away, read-only."""

import pathlib
import shutil
import subprocess

import numpy as np

from tests import runs
from tests.chaos import stage as stages
from tests.chaos.stage import Fault, Row
from vit_ssl_jax import build
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir.checkpoint import Checkpoints

MADE_OF = dict(size="40m", files=2000)


def damage_files(stage):
    """Every file of the newest checkpoint flipped, cut, zeroed and deleted."""
    whole = stage.fresh("whole")
    stage.finish(whole, steps=3 * stages.SAVED, keep=3)
    like = build.make_run(runs.small(**stages.SAME)).program.state
    truth = {
        int(folder.name): runs.arrays(folder)
        for folder in (whole / "checkpoints").iterdir()
    }
    newest, outcomes, lost = max(truth), {}, []
    files = [x for x in (whole / "checkpoints" / str(newest)).rglob("*") if x.is_file()]
    if stage.quick:
        files = list(stage.rng.choice(files, 4, replace=False))
    for file in files:
        for how in (flip, cut, zero, pathlib.Path.unlink):
            copy = shutil.copytree(whole, stage.fresh("damaged"))
            how(copy / file.relative_to(whole))
            step, problem = restore(copy, like, truth)
            outcomes[step] = outcomes.get(step, 0) + 1
            if problem:
                lost.append(f"{file.name}, {how.__name__}: {problem}")
    said = ", ".join(f"step {step} {count} times" for step, count in outcomes.items())
    result = f"right numbers of {said} ({newest} is the newest)"
    return Row("a checkpoint's file damaged", 4 * len(files), result, tuple(lost))


def restore(workdir, like, truth):
    """The step that is restored, and what is wrong with its numbers."""
    checkpoints = Checkpoints(workdir, 3)
    try:
        state, _ = checkpoints.restore(like)
    except UserError as error:
        return None, f"refused: {error}"
    finally:
        checkpoints.close()
    step, wanted = int(state.step), truth[int(state.step)]
    got = runs.named(state)
    same = all(np.array_equal(got[name], value) for name, value in wanted.items())
    return step, "" if same else "other numbers"


def flip(file):
    """One bit in the middle."""
    content = bytearray(file.read_bytes() or b"\0")
    content[len(content) // 2] ^= 8
    file.write_bytes(content)


def cut(file):
    """The second half lost."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(file):
    """The same size, nothing in it."""
    file.write_bytes(bytes(file.stat().st_size))


def fill_disk(stage):
    """The disk is full at the start, then in mid-run; then there is room again."""

    def fill(disk):
        with open(disk / "fill", "ab") as file:
            while True:
                file.write(bytes(2**16))
                file.flush()

    return on_disk(stage, "disk full", fill, lambda disk: (disk / "fill").unlink())


def use_up_files(stage):
    """No file more can be made."""

    def fill(disk):
        (disk / "many").mkdir()
        for i in range(100_000):
            (disk / "many" / str(i)).touch()

    def free(disk):
        shutil.rmtree(disk / "many")

    return on_disk(stage, "out of inodes", fill, free)


def forbid_writing(stage):
    """The disk becomes read-only for whoever opens a file, as after an error of its own."""

    def cover(disk):
        subprocess.run(["mount", "--bind", disk, disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)

    def uncover(disk):
        subprocess.run(["umount", "--lazy", disk], check=True)

    return on_disk(stage, "disk read-only", cover, uncover)


def on_disk(stage, fault, spoil, repair):
    """A disk spoilt before the run, and while it runs: one line, and it goes on after."""
    lost, place = [], stage.fresh("disk")
    try:
        with stages.disk(place, **MADE_OF) as disk:
            for before in (True, False):
                workdir = disk / f"run-{before}"
                if before:
                    expect_full(spoil, disk)
                process = stage.start(workdir)
                if not before:
                    stages.wait_for_step(process, workdir, 50)
                    expect_full(spoil, disk)
                out, _ = process.communicate(timeout=300)
                lines = [
                    line for line in out.splitlines() if line.startswith("error: ")
                ]
                if process.returncode != 1 or len(lines) != 1:
                    lost.append(f"status {process.returncode}: {out[-300:]}")
                repair(disk)
                lost += stage.lost(workdir)
                shutil.rmtree(workdir)
    except Fault as left_out:
        return Row(fault, 0, f"left out: {left_out}")
    return Row(fault, 2, "one line, status 1; repaired, it goes on", tuple(lost))


def expect_full(spoil, disk):
    """Spoils a disk; that it is full is what ends it."""
    try:
        spoil(disk)
    except OSError:
        pass


def remove_workdir(stage):
    """The workdir is deleted in mid-run: one line, soon."""
    workdir = stage.fresh("removed")
    process = stage.start(workdir, steps=1_000_000)
    stages.wait_for_step(process, workdir, 50)
    shutil.rmtree(workdir, ignore_errors=True)
    out, _ = process.communicate(timeout=120)
    lines = [line for line in out.splitlines() if line.startswith("error: ")]
    lost = [] if process.returncode == 1 and len(lines) == 1 else [out[-300:]]
    result = "one line, status 1; the checkpoints are gone with the folder"
    return Row("workdir deleted", 1, result, tuple(lost))
