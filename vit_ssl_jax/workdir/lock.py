"""One run at a time in a workdir: who is at work there, as a file that is kept alive.

Every BEAT seconds the holder writes its file anew. Whoever comes later reads it: of a
process of the same machine the system says whether it lives, of any other the file does,
which a dead one doesn't write any more.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid

import jax

from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir.files import GONE
from vit_ssl_jax.workdir.folder import is_stored, replace

NAME = "running.json"
BEAT = 10.0  # seconds between two signs of life
DEAD = 45.0  # without one, another machine's process is taken for dead
REQUEUE = 300.0  # so long a requeued job waits for its first turn to end
TOGETHER = 1.0  # seconds, after which two that begin at once read the same file
JOB = "SLURM_JOB_ID"  # which a requeued job keeps


class Lock:
    """A workdir that this process holds; `check` says whether it still does."""

    def __init__(self, workdir, me):
        self._file, self._me = workdir / NAME, me
        self._taken, self._gone = "", False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self):
        while not self._end.wait(BEAT):
            other = read(self._file)
            if other and other["token"] != self._me["token"]:
                self._taken = describe(other)
                return
            if self._is_gone(other):
                return
            with contextlib.suppress(Exception):  # a store that is away comes back
                write(self._file, self._me)

    def _is_gone(self, other):
        """Whether the file was deleted, by what `read` gives; a store may forget for a while."""
        if other is None and not is_stored(self._file):
            with contextlib.suppress(OSError):  # a mount that is away comes back
                self._gone = self._gone or not self._file.exists()
        return self._gone

    def check(self):
        """Raises UserError where another process has taken the workdir over, or it is gone."""
        if self._is_gone(read(self._file)):
            raise UserError(GONE.format(self._file.parent))
        if self._taken:
            raise UserError(
                f"{self._file.parent} was taken over by {self._taken}, which had no sign "
                f"of life of this process for {DEAD:.0f} s; nothing more is written here. "
                "The other run goes on"
            )

    def release(self):
        """Gives the workdir back."""
        self._end.set()
        self._thread.join()
        if not (self._taken or self._gone):
            with contextlib.suppress(Exception):
                self._file.unlink()


@contextlib.contextmanager
def hold(workdir, say):
    """Yields the `Lock` of a workdir while it is held, on process 0; None on others.

    Raises UserError at once where another process is at work there. One that is dead is
    taken over; of another machine's it takes DEAD seconds to know, and a requeued job
    waits for its first turn.
    """
    lock = None
    with processes.together():
        if jax.process_index() == 0:
            lock = take(workdir, say)
    try:
        yield lock
    finally:
        if lock:
            lock.release()


def take(workdir, say):
    """The `Lock` of a workdir, as `hold` has it."""
    file, me = workdir / NAME, identity()
    if other := read(file):
        wait_for(file, other, me, say)
    if is_stored(file):  # no store creates a file for one of two alone
        write(file, me)
        time.sleep(TOGETHER)
    else:
        file.unlink(missing_ok=True)
        try:
            with open(file, "x") as new:
                new.write(json.dumps(me))
        except FileExistsError:
            time.sleep(TOGETHER)
        except OSError as error:
            error.filename = str(file)  # which an error of writing doesn't tell
            raise
    now = read(file)
    if now and now["token"] != me["token"]:
        raise UserError(refusal(workdir, now))
    return Lock(workdir, me)


def wait_for(file, other, me, say):
    """Returns once the holder of a file is dead or gone; raises UserError else."""
    alive = is_alive(other)
    if alive is False:
        say(f"the workdir was left behind by {describe(other)}, which is gone")
        return
    same_job = bool(me["job"]) and other["job"] == me["job"]
    if alive and not same_job:
        raise UserError(refusal(file.parent, other))
    patience = REQUEUE if same_job else DEAD
    say(f"waiting up to {patience:.0f} s: is {describe(other)} still at work here?")
    first, last = other, time.monotonic() + patience
    while time.monotonic() < last:
        time.sleep(min(BEAT / 5, patience / 10))
        other = read(file)
        if other is None or is_alive(other) is False:
            return
        if other["beats"] != first["beats"] and not same_job:
            raise UserError(refusal(file.parent, other))
    if same_job and is_alive(other):
        raise UserError(refusal(file.parent, other))


def refusal(workdir, other):
    """Why nothing can be started in a workdir that another process is at work in."""
    return (
        f"--workdir={workdir} is in use by {describe(other)}; stop that one first, or "
        "give another --workdir"
    )


def identity():
    """Who this process is: what tells it from all others, of this machine and others."""
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "place": place(),
        "started": started(os.getpid()),
        "job": os.environ.get(JOB, ""),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "beats": 0,
    }


def place():
    """Where numbers of processes mean something: this boot of the machine, this container."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid):
    """When a process of this machine began, in ticks since it was booted; "" is none."""
    try:
        words = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] == "Z" else words[19]  # a zombie is dead
    except (OSError, IndexError):
        return ""


def is_alive(other):
    """Whether a holder lives; None: it is of another machine, or that isn't known."""
    if not other["place"] or other["place"] != place():
        return None
    return bool(other["started"]) and started(other["pid"]) == other["started"]


def describe(other):
    """A holder in words."""
    job = f", job {other['job']}" if other["job"] else ""
    return f"process {other['pid']} on {other['host']}{job}, since {other['since']}"


def read(file):
    """What a file says of its holder; None where there is none, or nothing whole."""
    try:
        other = json.loads(file.read_text())
        keys = ("token", "host", "pid", "place", "started", "job", "since", "beats")
        return other if all(key in other for key in keys) else None
    except Exception:  # noqa: BLE001 - stores of objects have their own
        return None


def write(file, me):
    """Writes a sign of life."""
    me["beats"] += 1
    replace(file, json.dumps(me, indent=2) + "\n")
