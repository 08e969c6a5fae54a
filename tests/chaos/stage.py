"""A small run, how it ends when nothing happens to it, and what of it is lost."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
import subprocess
import time

import numpy as np

from tests import runs

STEPS, SAVED = 400, 20  # of a run, and between its checkpoints
SAME = dict(steps=STEPS, checkpoint_every=SAVED, data__stream=2, data__pixels="near")


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of one kind of fault."""

    fault: str
    tries: int
    result: str
    lost: tuple[str, ...] = ()  # what should have been kept, or said


@dataclasses.dataclass
class Stage:
    """Where the runs are, what is drawn at random, and how often."""

    folder: pathlib.Path
    rng: np.random.Generator
    kills: int
    quick: bool

    @functools.cached_property
    def reference(self):
        """Weights and losses of the run that nothing happens to."""
        self.finish(self.folder / "straight")
        return read(self.folder / "straight")

    def start(self, workdir, *more, **changes):
        """Starts the run, or goes on with it."""
        return runs.command(workdir, *more, **(SAME | changes))

    def finish(self, workdir, **changes):
        """The output of a run that goes to its end; raises Fault where it doesn't."""
        process = self.start(workdir, **changes)
        try:
            out, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Fault("hangs") from None
        if process.returncode:
            raise Fault(f"status {process.returncode}: {out[-300:]}")
        return out

    def lost(self, workdir, exact=True, **changes):
        """What the run lacks of `reference` when it is finished: a list of lines."""
        try:
            self.finish(workdir, **changes)
        except Fault as fault:
            return [f"{workdir.name}: {fault}"]
        weights, losses = read(workdir)
        wanted, wanted_losses = self.reference
        lines = []
        if sorted(losses) != list(range(1, STEPS + 1)):
            lines.append(f"{workdir.name}: {len(losses)} of {STEPS} steps are logged")
        elif not (losses == wanted_losses if exact else alike(losses, wanted_losses)):
            lines.append(f"{workdir.name}: other losses")
        for name, value in wanted.items():
            same = np.array_equal(weights[name], value)
            if not same and (exact or not close(name, weights[name], value)):
                lines.append(f"{workdir.name}: {name} is another")
                break
        return lines

    def fresh(self, name):
        """A workdir that isn't there yet."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path


class Fault(Exception):
    """A run that should have gone to its end and didn't."""


def alike(losses, wanted):
    """Whether losses by step are equal up to the order of sums over other devices."""
    return all(
        np.isclose(losses[step], value, rtol=1e-5) for step, value in wanted.items()
    )


def close(name, a, b):
    """Whether arrays of a state are equal up to the order of sums over other devices.

    The bias of keys isn't looked at: no softmax depends on it, so that its gradient is
    rounding alone, which Adam makes as large as any other.
    """
    if name.endswith("attn/qkv/bias"):  # [L 3 A D]
        a, b = (np.delete(x, 1, axis=1) for x in (a, b))
    if a.dtype.kind in "iu":
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol=1e-4, atol=2e-6)


def read(workdir):
    """The last weights of a run by name, and its losses by step; a step twice counts none."""
    losses = {}
    for row in runs.metrics(workdir):
        if "train/loss" in row:
            again = row["step"] in losses
            losses[row["step"]] = None if again else row["train/loss"]
    return runs.weights(workdir), losses


def wait_for(process, condition, seconds=120):
    """Waits until `condition()` holds, the process ends or the time is over."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def wait_for_step(process, workdir, step):
    """Waits until a step is logged, or the process ends."""
    return wait_for(process, lambda: steps(workdir) >= step)


def steps(workdir):
    """The last step that is logged."""
    rows = runs.metrics(workdir)
    return rows[-1]["step"] if rows else 0


@contextlib.contextmanager
def disk(folder, size, files):
    """A folder that is a disk of its own, in memory; raises Fault where none can be had."""
    folder.mkdir()
    how = ["-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "tmpfs"]
    made = subprocess.run(
        ["mount", *how, folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise Fault(f"only root can mount a disk: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
