"""Several processes that are one run: the roll call at its start, what they agree on."""

import contextlib
import importlib.metadata
import json
import platform
import secrets
import socket
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

import vit_ssl_jax
from vit_ssl_jax.errors import UserError

ANSWER_SECONDS = 10  # for a process that is there to say who it is
REMIND_SECONDS = 30
LEAVE_SECONDS = 60  # for the others to end, once one has
TEXT_BYTES = 4000  # of an error that all are told
VISIBLE_SECONDS = 10  # for a file of another host to be seen


def start(group, facts, timeout, say=print):
    """Joins the processes of a `clusters.Group`: from here on jax sees all devices.

    To be called before anything has asked jax for devices. `facts` (dict, by process)
    must be the same on all, as must versions. `timeout`: seconds.

    Raises UserError on every process unless all are there in time and alike.
    """
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    versions |= {"vit_ssl_jax": vit_ssl_jax.__version__}
    versions |= {"python": ".".join(platform.python_version_tuple()[:2])}
    about = dict(index=group.index, count=group.count, host=socket.gethostname())
    about["facts"] = json.loads(json.dumps({**versions, **facts}))
    deadline = time.monotonic() + timeout
    call = take_roll if group.index == 0 else answer_roll
    call(group, about, deadline, timeout, say)
    jax.distributed.initialize(
        group.coordinator,
        group.count,
        group.index,
        local_device_ids=group.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=timeout,
        shutdown_timeout_seconds=LEAVE_SECONDS,
    )


def take_roll(group, about, deadline, timeout, say):
    """Process 0's part: waits for the others and tells them how it went."""
    port = int(group.coordinator.rsplit(":", 1)[1])
    there, links = {0: about}, []
    reminder = time.monotonic() + REMIND_SECONDS
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", port)))
        except OSError as error:
            raise UserError(
                f"process 0 can't listen at port {port} ({error.strerror}); give "
                "--coordinator another port, on all hosts"
            ) from None
        problem = ""
        while len(there) < group.count and not problem:
            now = time.monotonic()
            if now > deadline:
                problem = describe_missing(group, there, timeout)
                break
            if now > reminder:
                say(f"waiting: {describe_missing(group, there)}")
                reminder = now + REMIND_SECONDS
            server.settimeout(max(0.1, min(deadline, reminder) - now))
            if (link := accept(server)) is None:
                continue
            stack.enter_context(link)
            if (other := read_line(link)) is None:
                continue  # no process of ours
            links.append(link)
            problem = find_twin(there, other) or find_difference(about, other)
            there[other["index"]] = other
        for link in links:
            with contextlib.suppress(OSError):
                link.sendall(json.dumps({"problem": problem}).encode() + b"\n")
    if problem:
        raise UserError(problem)


def answer_roll(group, about, deadline, timeout, say):
    """The part of the others: they say who they are until process 0 has heard all."""
    host, port = group.coordinator.rsplit(":", 1)
    reminder, reason = time.monotonic() + REMIND_SECONDS, "no answer"
    while (now := time.monotonic()) < deadline:
        if now > reminder:
            say(f"waiting for process 0 at {group.coordinator}: {reason}")
            reminder = now + REMIND_SECONDS
        try:
            wait = max(0.1, min(ANSWER_SECONDS, deadline - now))
            with socket.create_connection((host, int(port)), timeout=wait) as link:
                link.sendall(json.dumps(about).encode() + b"\n")
                # Process 0 may have started later, so its time may end later.
                verdict = read_line(link, timeout + ANSWER_SECONDS)
        except OSError as error:
            verdict, reason = None, error.strerror or str(error)
        if verdict is not None:
            if verdict["problem"]:
                raise UserError(verdict["problem"])
            return
        time.sleep(0.2)
    raise UserError(
        f"process {group.index} on {about['host']} did not reach process 0 at "
        f"{group.coordinator} within {timeout:g} s ({reason}). Start it there, let the "
        f"hosts reach each other at port {port}, or wait longer: --start_timeout=SECONDS"
    )


def accept(server):
    """A connection, or None where none came in time."""
    try:
        return server.accept()[0]
    except TimeoutError:
        return None


def read_line(link, seconds=ANSWER_SECONDS):
    """The object that was sent, one line of JSON; None where there is none."""
    link.settimeout(seconds)
    try:
        with link.makefile() as file:
            found = json.loads(file.readline(1 << 20))
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def describe_missing(group, there, timeout=None):
    """Who isn't there, who is, and what to do about it."""
    missing = [i for i in range(group.count) if i not in there]
    text = f"process {', '.join(map(str, missing))} of {group.count} "
    if len(group.hosts) == group.count:
        text += f"({', '.join(group.hosts[i] for i in missing)}) "
    seen = ", ".join(f"{i} on {there[i]['host']}" for i in sorted(there))
    if timeout is None:
        return f"{text}hasn't come yet to {group.coordinator}; there: {seen}"
    facts = there[0]["facts"]
    versions = ", ".join(f"{n} {facts[n]}" for n in ("jax", "vit_ssl_jax", "python"))
    return (
        f"{text}did not come within {timeout:g} s to the coordinator "
        f"{group.coordinator}. There: {seen} ({versions}). Start the missing, let the "
        "hosts reach each other at that port, or wait longer: --start_timeout=SECONDS"
    )


def find_twin(there, other):
    """What is wrong where two processes have one number, or ""."""
    if (twin := there.get(other["index"])) is None:
        return ""
    return (
        f"two processes say that they are --process_id={other['index']}, on "
        f"{twin['host']} and on {other['host']}; each needs its own number"
    )


def find_difference(ours, other):
    """What is wrong where a process runs something else than process 0, or ""."""
    if other["count"] != ours["count"]:
        return (
            f"process {other['index']} on {other['host']} has --num_processes="
            f"{other['count']}, process 0 {ours['count']}; give all the same"
        )
    a, b = ours["facts"], other["facts"]
    keys = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    if not keys:
        return ""
    return (
        f"process {other['index']} on {other['host']} differs from process 0 on "
        f"{ours['host']}: "
        + "; ".join(f"{k} {b.get(k)}, not {a.get(k)}" for k in keys[:8])
        + ". Give all processes the same versions, config and workdir"
    )


@contextlib.contextmanager
def together():
    """What fails inside on one process, with a UserError, fails on all of them.

    Inside nothing may need the other processes.
    """
    if jax.process_count() == 1:
        yield
        return
    problem = None
    try:
        yield
    except UserError as error:
        problem = error
    text = f"on {socket.gethostname()}: {problem}" if problem else ""
    row = np.zeros(TEXT_BYTES, np.uint8)
    raw = np.frombuffer(text.encode()[:TEXT_BYTES], np.uint8)
    row[: len(raw)] = raw
    rows = multihost_utils.process_allgather(row)
    texts = [bytes(r).rstrip(b"\0").decode(errors="replace") for r in np.asarray(rows)]
    if problem:
        raise problem
    if text := next(filter(None, texts), ""):
        raise UserError(text)


def say(text):
    """Prints a line, on process 0 alone."""
    if jax.process_index() == 0:
        print(text, flush=True)


def any_process(true):
    """Whether something is true on any process."""
    if jax.process_count() == 1:
        return bool(true)
    return bool(np.any(multihost_utils.process_allgather(np.uint8(true))))


def wait_for_all(name):
    """Returns once every process is at this point, `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_shared(workdir):
    """Raises UserError unless all processes see what process 0 writes in `workdir`."""
    if jax.process_count() == 1:
        return
    number = multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32)))
    file = workdir / f".seen-by-all-{int(number):08x}"
    with together():
        if jax.process_index() == 0:
            file.write_text("")
    with together():
        last = time.monotonic() + VISIBLE_SECONDS
        while not file.exists():
            if time.monotonic() > last:
                raise UserError(
                    f"--workdir={workdir} isn't the same folder here as for process 0: "
                    "what it writes there isn't seen. Give a folder that all hosts "
                    "share (gs://BUCKET/..., a network file system)"
                )
            time.sleep(0.5)
    if jax.process_index() == 0:
        file.unlink()
