"""The roll call, among threads: who is missing, who differs, who is no one of ours."""

import json
import re
import socket
import threading
import time

import pytest

from tests.runs import free_port
from vit_ssl_jax.distributed import clusters, rollcall
from vit_ssl_jax.errors import UserError


def about(index, count=2, host="", **facts):
    facts = {"jax": "1.0", "vit_ssl_jax": "2.0", "python": "3.11"} | facts
    return dict(index=index, count=count, host=host or f"host{index}", facts=facts)


def call_roll(*others, seconds=10.0, count=2, hosts=(), said=None):
    """The roll call among threads: what each raised, by process; process 0 first."""
    coordinator, problems = f"localhost:{free_port()}", {}
    said = [] if said is None else said

    def take_part(call, number, me):
        group = clusters.Group(coordinator, me["count"], me["index"], hosts)
        try:
            call(group, me, seconds, said.append)
            problems[number] = ""
        except UserError as error:
            problems[number] = str(error)

    parts = [(rollcall.take_roll, 0, about(0, count))]
    parts += [(rollcall.answer_roll, i, me) for i, me in enumerate(others, 1)]
    threads = [threading.Thread(target=take_part, args=part) for part in parts]
    for thread in reversed(threads):  # process 0 comes last
        thread.start()
    for thread in threads:
        thread.join(seconds + 20)
    return [problems[i] for i in range(len(parts))]


def test_all_there_and_alike_begin():
    assert call_roll(about(1, 3), about(2, 3), count=3) == ["", "", ""]


def test_a_missing_process_ends_all_in_time_and_is_named():
    begun = time.monotonic()
    hosts = ("hosta", "hostb", "hostc")
    first, second = call_roll(about(2, 3), seconds=1.5, count=3, hosts=hosts)
    assert time.monotonic() - begun < 10
    assert first == second
    assert re.match(r"process 1 of 3 \(hostb\) did not come within 1.5 s", first)
    assert "localhost:" in first
    assert "There: 0 on host0, 2 on host2" in first
    assert "jax 1.0, vit_ssl_jax 2.0, python 3.11" in first
    assert "--start_timeout" in first


def test_processes_that_wait_say_for_whom(monkeypatch):
    monkeypatch.setattr(rollcall, "REMIND_SECONDS", 0.2)
    said = []
    call_roll(seconds=0.7, said=said)
    assert said[0].startswith("waiting: process 1 of 2 hasn't come yet to localhost:")


def test_a_process_alone_says_where_it_looked():
    group = clusters.Group(f"localhost:{free_port()}", 2, 1)
    with pytest.raises(
        UserError, match="process 1 on host1 did not reach process 0 at"
    ):
        rollcall.answer_roll(group, about(1), 0.5)


def test_other_versions_and_configs_are_refused_by_name():
    other = about(1, jax="1.1", **{"config.seed": 3})
    first, second = call_roll(other)
    assert first == second
    assert "process 1 on host1 differs from process 0 on host0" in first
    assert "config.seed 3, not None; jax 1.1, not 1.0" in first


def test_one_number_twice_is_refused():
    first, *others = call_roll(about(1, 3), about(1, 3, "host9"), count=3)
    assert "two processes say that they are --process_id=1" in first
    assert "host1" in first
    assert "host9" in first
    assert others == [first, first]


def test_a_process_that_was_started_again_counts_once():
    coordinator = f"localhost:{free_port()}"
    group = clusters.Group(coordinator, 3, 0)
    server = threading.Thread(target=rollcall.take_roll, args=(group, about(0, 3), 20))
    server.start()
    link = connect(coordinator)
    link.sendall(json.dumps(about(1, 3)).encode() + b"\n")
    time.sleep(0.3)
    link.close()
    others = [
        threading.Thread(
            target=rollcall.answer_roll,
            args=(clusters.Group(coordinator, 3, i), about(i, 3), 20),
        )
        for i in (1, 2)
    ]
    for other in others:
        other.start()
    for thread in (server, *others):
        thread.join(20)
        assert not thread.is_alive()


def test_a_process_that_came_and_died_is_missing():
    coordinator = f"localhost:{free_port()}"
    links = []

    def come_and_die():
        for index in (1, 2):
            links.append(connect(coordinator))
            links[-1].sendall(json.dumps(about(index, 3)).encode() + b"\n")
            time.sleep(0.3)
            links[0].close()

    thread = threading.Thread(target=come_and_die)
    thread.start()
    with pytest.raises(UserError, match="process 1 of 3 did not come within 2 s"):
        rollcall.take_roll(clusters.Group(coordinator, 3, 0), about(0, 3), 2)
    thread.join(20)
    assert "process 1 of 3" in rollcall.read_line(links[1])["problem"]
    links[1].close()


def connect(coordinator):
    """A connection, once somebody listens."""
    host, port = coordinator.split(":")
    for _ in range(100):
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(coordinator)


def test_other_counts_are_refused():
    first, _ = call_roll(about(1, 4))
    assert "has --num_processes=4, process 0 2" in first


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        group = clusters.Group(f"localhost:{port}", 2, 0)
        with pytest.raises(UserError, match=f"can't listen at port {port}"):
            rollcall.take_roll(group, about(0), 5)


def test_strangers_at_the_port_are_told_and_left_aside():
    """Those that talk another protocol, and those whose words are right but not their values."""
    said, heard = [], []
    wrong = [{"index": "1"}, {"index": 7}, {"index": -1}, {"count": None}, {"host": 5}]
    wrong = [about(1) | change for change in [*wrong, {"facts": []}]]
    lines = [json.dumps(line).encode() + b"\n" for line in wrong]
    coordinator = f"localhost:{free_port()}"
    group = [clusters.Group(coordinator, 2, i) for i in range(2)]
    arguments = group[0], about(0), 20, said.append
    server = threading.Thread(target=rollcall.take_roll, args=arguments)
    server.start()
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\n", *lines):
        with connect(coordinator) as link:
            link.sendall(text)
            heard.append(link.makefile().readline())
    rollcall.answer_roll(group[1], about(1), 20)
    server.join(20)
    assert not server.is_alive()
    assert len(said) == len(heard) == 3 + len(lines)
    assert all("is no process of a run and was left aside" in line for line in said)
    assert all("this port is for processes" in line for line in heard)
