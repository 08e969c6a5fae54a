"""A long run: what of the machine it holds at its start, it holds at its end."""

import collections
import pathlib
import signal
import struct
import time

from tensorboardX.proto.event_pb2 import Event

from tests.chaos import stage as stages
from tests.chaos.stage import Row

STEPS, PIECES = 20_000, 4
OFTEN = dict(checkpoint_every=250, log_every=10, evals__knn__every_epochs=-1.0)
GROWTH = 1.05, 2, 2  # times the memory, descriptors and threads more, that may be


def go_on_for_long(stage):
    """20,000 steps with three stops: memory, descriptors, threads, and TensorBoard's files."""
    count = 1000 if stage.quick else STEPS
    workdir, lost, kept = stage.fresh("long"), [], []
    for piece in range(1, PIECES + 1):
        process = stage.start(workdir, **(OFTEN | dict(steps=count)))
        seen = watch(process, workdir, count * piece // PIECES)
        if piece < PIECES:
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=300)
        if process.returncode:
            lost.append(f"status {process.returncode}: {out[-300:]}")
        kept.append((seen[len(seen) // 3], seen[-1]))
    for begin, end in kept:
        if end[0] > GROWTH[0] * begin[0] or any(
            end[i] > begin[i] + GROWTH[i] for i in (1, 2)
        ):
            lost.append(f"MiB, descriptors, threads: {begin}, later {end}")
    wanted = collections.Counter({step: 1 for step in range(10, count + 1, 10)})
    if (found := losses_in_events(workdir)) != wanted:
        lost.append(f"TensorBoard's files: {len(found - wanted)} steps twice or wrong")
    text = "; ".join("{} MiB {} {} -> {} {} {}".format(*a, *b) for a, b in kept)
    result = f"{count:,} steps; a third of each start, its end (descriptors, threads): "
    return Row("a long run, three resumes", PIECES, result + text, tuple(lost))


def watch(process, workdir, last):
    """What a process holds, every half second, until a step is logged: a list."""
    stages.wait_for_step(process, workdir, stages.steps(workdir) + 1)
    seen = []
    while process.poll() is None and stages.steps(workdir) < last:
        try:
            seen.append(held(process.pid))
        except FileNotFoundError:  # it has just ended
            break
        time.sleep(0.5)
    return seen


def held(pid):
    """MiB of memory, open descriptors and threads of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    descriptors = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]) // 1024, descriptors, int(fields["Threads"])


def losses_in_events(workdir):
    """How often TensorBoard's files have a step's loss, as TensorBoard reads them.

    A session that starts at a step replaces what was there from that step on.
    """
    found = collections.Counter()
    for file in sorted(workdir.glob("events.out.tfevents.*")):
        for event in read_events(file):
            if event.HasField("session_log"):
                kept = {step: n for step, n in found.items() if step < event.step}
                found = collections.Counter(kept)
            tags = [value.tag for value in event.summary.value]
            found[event.step] += tags.count("train/loss")
    return +found


def read_events(file):
    """The events in one of TensorBoard's files."""
    content = file.read_bytes()
    while len(content) >= 12:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
