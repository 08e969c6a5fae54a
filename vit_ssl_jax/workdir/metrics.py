"""Metrics written: console, metrics.jsonl, TensorBoard, a tracker. Process 0 only."""

import contextlib
import json
import sys
import time

import jax
import tqdm
from etils import epath

from vit_ssl_jax.errors import UserError, printable
from vit_ssl_jax.workdir import tracking
from vit_ssl_jax.workdir.files import GONE, is_stored, read_rows, replace

AGAIN = 30  # seconds between two writes of a file that can't be appended to


class Writer:
    """Writes a run's metrics; on resume it first drops what lies after the checkpoint."""

    def __init__(self, workdir, *, start, steps, config=None):
        """`config.track` names the tracker, where there is one."""
        self._on = jax.process_index() == 0
        self._bar = self._tracker = None
        self._done, self._steps = start, steps
        if not self._on:
            return
        import tensorboardX  # it brings PyTorch where that is installed

        path = epath.Path(workdir) / "metrics.jsonl"
        self._rows = Rows(path, start)
        self._board = tensorboardX.SummaryWriter(
            str(workdir), purge_step=start + 1 if start else None
        )
        if sys.stdout.isatty():
            self._bar = tqdm.tqdm(
                total=steps,
                initial=start,
                unit="step",
                file=sys.stdout,
                dynamic_ncols=True,
            )
        if config and config.get("track", "") and start < steps:
            self._tracker = tracking.Tracker(config, epath.Path(workdir), self.say)

    def advance(self, steps):
        """So many steps more on the progress bar."""
        if self._bar is not None:
            self._bar.update(steps)

    def write(self, step, metrics):
        """Appends `{name: float}` of a step to metrics.jsonl and TensorBoard, tracked too."""
        if not self._on:
            return
        metrics = {k: float(v) for k, v in sorted(metrics.items())}
        self._rows.append(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        self._done = max(step, self._done)
        if self._tracker:
            self._tracker.log(step, metrics)

    def write_image(self, step, name, pixels):
        """Puts a picture of a step, uint8 `[h w 3]`, into TensorBoard."""
        if self._on:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def say(self, text):
        """Prints a line, above the progress bar where there is one."""
        if self._on:
            tqdm.tqdm.write(printable(text), file=sys.stdout)
            sys.stdout.flush()

    def flush(self):
        """Puts what was written into the workdir."""
        if self._on:
            self._rows.flush()
            self._board.flush()

    def close(self):
        """Flushes and closes everything."""
        if not self._on:
            return
        if self._bar is not None:
            self._bar.close()
        self.flush()
        self._board.close()
        if self._tracker:
            self._tracker.close(self._done >= self._steps)


class Rows:
    """The lines of metrics.jsonl, without those after a step and those that are torn.

    A line is there once it is appended; in a store of objects (gs://), which can't
    append, all are written again, once in a while and by `flush`.
    """

    def __init__(self, path, step):
        self._path, self._written = path, time.perf_counter()
        self._stored = is_stored(path)
        self._kept = cut_back(path, step)

    def append(self, line):
        """Adds a line."""
        if not self._stored:
            try:
                with self._path.open("a") as file:
                    file.write(line)
            except FileNotFoundError:
                raise UserError(GONE.format(self._path.parent)) from None
            return
        self._kept.append(line)
        if time.perf_counter() - self._written > AGAIN:
            self.flush()

    def flush(self):
        """Writes what isn't written yet."""
        if self._stored:
            replace(self._path, "".join(self._kept))
            self._written = time.perf_counter()


def cut_back(path, step):
    """Drops the lines of metrics.jsonl after `step`, and torn ones; returns the rest."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    replace(path, "".join(kept))
    return kept


def read_metrics(workdir, prefix):
    """The metrics of a workdir whose names start with `prefix`: a dict a line, in order."""
    rows = read_rows(epath.Path(workdir) / "metrics.jsonl")
    rows = ({k: v for k, v in row.items() if k.startswith(prefix)} for row in rows)
    return [row for row in rows if row]


class Meter:
    """Speed since a step, and the share of the time spent waiting for data."""

    def __init__(self, start):
        self._start, self._begun, self._waited = start, time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def seconds(self):
        """Seconds since the start."""
        return time.perf_counter() - self._begun

    def seconds_a_step(self, done):
        """Seconds a step up to `done`; 0 where there is none."""
        return self.seconds() / steps if (steps := done - self._start) else 0.0

    def read(self, done, batch_size):
        """Metrics `perf/...` of the steps up to `done`; {} where there is none."""
        steps, seconds = done - self._start, self.seconds()
        if not steps:
            return {}
        return {
            # images a second since the row before, without evaluations and pictures
            "perf/img_per_sec": steps * batch_size / seconds,
            "perf/step_seconds": self.seconds_a_step(done),  # seconds a step, likewise
            # share of that time in which the step waited for images
            "perf/data_wait_frac": self._waited / seconds,
        }
