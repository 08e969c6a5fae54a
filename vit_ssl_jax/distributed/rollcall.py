"""The roll call of a run's processes: all there in time, and alike, or none begins."""

import contextlib
import json
import socket
import time

from vit_ssl_jax.errors import UserError

ANSWER_SECONDS = 10  # for a process that is there to say who it is
REMIND_SECONDS = 30


def take_roll(group, about, timeout, say=print):
    """Process 0's part of it: waits for the others and tells them how it went."""
    deadline = time.monotonic() + timeout
    port = int(group.coordinator.rsplit(":", 1)[1])
    present, links = {0: about}, {}
    reminder = time.monotonic() + REMIND_SECONDS
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(listen(port))
        except OSError as error:
            raise UserError(
                f"process 0 can't listen at port {port} ({error.strerror}); give "
                "--coordinator another port, on all hosts"
            ) from None
        problem = ""
        while not problem:
            drop_gone(present, links)
            if len(present) == group.count:
                break
            now = time.monotonic()
            if now > deadline:
                problem = describe_missing(group, present, timeout)
                break
            if now > reminder:
                say(f"waiting: {describe_missing(group, present)}")
                reminder = now + REMIND_SECONDS
            server.settimeout(max(0.1, min(deadline, reminder) - now))
            if (link := accept(server)) is None:
                continue
            stack.enter_context(link)
            if not is_ours(other := read_line(link)):
                tell_stranger(link, port, say)
                continue
            index = other["index"]
            drop_gone(present, links)
            problem = find_twin(present, other) or find_difference(about, other)
            present[index] = other
            if problem and index in links:
                links[-1] = links[index]  # both hear it
            links[index] = link
        for link in links.values():
            with contextlib.suppress(OSError):
                link.sendall(json.dumps({"problem": problem}).encode() + b"\n")
    if problem:
        raise UserError(problem)


def answer_roll(group, about, timeout, say=print):
    """The others' part of it: they say who they are until process 0 has heard all."""
    deadline = time.monotonic() + timeout
    host, port = group.coordinator.rsplit(":", 1)
    host = host.strip("[]")  # of an IPv6 address
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
        problem = (verdict or {}).get("problem")  # another server says something else
        if problem:
            raise UserError(problem)
        if problem == "":
            return
        time.sleep(0.2)
    raise UserError(
        f"process {group.index} on {about['host']} did not reach process 0 at "
        f"{group.coordinator} within {timeout:g} s ({reason}). Start it there, let the "
        f"hosts reach each other at port {port}, or wait longer: --start_timeout=SECONDS"
    )


def listen(port):
    """A server at a port of all the host's addresses."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=both)


def drop_gone(present, links):
    """Forgets the processes that ended while they waited: they may be started again."""
    for index in [i for i, link in links.items() if gone(link)]:
        del present[index], links[index]


def gone(link):
    """Whether the other end of a connection, on which it says nothing yet, has gone."""
    link.setblocking(False)
    try:
        return not link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        link.settimeout(ANSWER_SECONDS)


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
            message = json.loads(file.readline(1 << 20))
        return message if isinstance(message, dict) else None
    except (OSError, ValueError):
        return None


def is_ours(other):
    """Whether an object is what `answer_roll` sends, and its number one of its count."""
    kinds = dict(index=int, count=int, host=str, facts=dict)
    if other is None or other.keys() != kinds.keys():
        return False
    right = all(type(other[key]) is kind for key, kind in kinds.items())
    return right and 0 <= other["index"] < other["count"]


def tell_stranger(link, port, say):
    """Says on both ends that a connection isn't one of the run's processes, and drops it."""
    with contextlib.suppress(OSError):
        say(
            f"what came to port {port} from {link.getpeername()[0]} is no process of a "
            "run and was left aside"
        )
        link.sendall(b'{"stranger": "this port is for processes of vit_ssl_jax"}\n')
        link.shutdown(socket.SHUT_RDWR)


def describe_missing(group, present, timeout=None):
    """Who isn't there, who is, and what to do about it."""
    missing = [i for i in range(group.count) if i not in present]
    text = f"process {', '.join(map(str, missing))} of {group.count} "
    if len(group.hosts) == group.count:
        text += f"({', '.join(group.hosts[i] for i in missing)}) "
    seen = ", ".join(f"{i} on {present[i]['host']}" for i in sorted(present))
    if timeout is None:
        return f"{text}hasn't come yet to {group.coordinator}; there: {seen}"
    facts = present[0]["facts"]
    versions = ", ".join(f"{n} {facts[n]}" for n in ("jax", "vit_ssl_jax", "python"))
    return (
        f"{text}did not come within {timeout:g} s to the coordinator "
        f"{group.coordinator}. There: {seen} ({versions}). Start the missing, let the "
        "hosts reach each other at that port, or wait longer: --start_timeout=SECONDS"
    )


def find_twin(present, other):
    """The message for two processes that have one number; "" where none have."""
    if (twin := present.get(other["index"])) is None:
        return ""
    return (
        f"two processes say that they are --process_id={other['index']}, on "
        f"{twin['host']} and on {other['host']}; each needs its own number"
    )


def find_difference(ours, other):
    """The message for a process that runs something else than process 0, or ""."""
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
