"""The page served while runs train: what it answers, what it never does."""

import contextlib
import http.client
import json
import socket
import threading

import pytest

from tests.report import made
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.report import live

pytest.importorskip("plotly", reason="the page needs plotly.min.js")


@contextlib.contextmanager
def serving(path, host="127.0.0.1"):
    """A server of the runs below a path, in a thread: a function that asks it."""
    with live.make_server([str(path)], host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(address, method="GET", **headers):
            link = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
            with contextlib.closing(link):
                link.putrequest(method, address, skip_host="Host" in headers)
                for name, value in headers.items():
                    link.putheader(name.replace("_", "-"), value)
                link.endheaders()
                answer = link.getresponse()
                return answer.status, answer.read(), dict(answer.headers)

        ask.port = server.server_address[1]
        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's workdir, and a server that looks at once."""
    monkeypatch.setattr(live, "AGAIN", -1.0)
    monkeypatch.setattr(live, "SPARED", 0)
    return made.write(tmp_path / "runs" / "a", steps=10)


def test_a_run_is_followed_as_it_is_written(run):
    with serving(run.parent) as ask:
        status, body, headers = ask("/")
        assert status == 200 and headers["Content-Type"].startswith("text/html")
        assert b"connect-src 'self'" in body and b"const LIVE = true" in body
        assert str(run).encode() not in body

        status, body, headers = ask("/data.json")
        (told,) = json.loads(body)["runs"]
        assert status == 200 and told["step"] == 10
        mark = headers["ETag"]
        assert ask("/data.json", If_None_Match=mark)[:2] == (304, b"")

        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 11, "train/loss": 0.125}\n{"step": 12, "tr')
        status, body, headers = ask("/data.json", If_None_Match=mark)
        (told,) = json.loads(body)["runs"]
        assert status == 200 and headers["ETag"] != mark and told["step"] == 11
        assert told["curves"]["train/loss"]["y"][-1] == 0.125
        assert told["notes"] == [
            "left out: 1 damaged or half-written lines of metrics.jsonl"
        ]

        made.write(run.parent / "later", steps=3)  # a run that begins meanwhile
        names = [r["name"] for r in json.loads(ask("/data.json")[1])["runs"]]
        assert names == ["a", "later"]


def test_files_that_take_long_to_read_are_read_seldom(run, monkeypatch):
    """So that a page that looks every ten seconds never keeps a machine busy."""
    now = iter([0.0, 4.0, 43.0, 45.0, 46.0])  # read in 4 s; asked at 43 and at 45 s
    monkeypatch.setattr(live.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(live, "SPARED", 10)
    shown = live.Runs([str(run)])
    before = shown.answer("/data.json")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "train/loss": 0.125}\n')
    assert shown.answer("/data.json") == before
    assert json.loads(shown.answer("/data.json")[0])["runs"][0]["step"] == 11


def test_pictures_are_an_answer_of_their_own(run):
    with serving(run.parent) as ask:
        status, body, _ = ask("/pictures.json")
        assert status == 200 and json.loads(body)["runs"] == {}
        made.picture(run / "pictures" / "5" / "mae.png")
        assert json.loads(ask("/pictures.json")[1])["runs"]["a"]["mae"][0]["step"] == 5
        before = ask("/pictures.json")[2]["ETag"]
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 11, "train/loss": 0.125}\n')
        assert ask("/pictures.json", If_None_Match=before)[0] == 304


@pytest.mark.parametrize(
    "address",
    [
        "/config.json",
        "/a/config.json",
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/data.json/../../a/config.json",
        "/data.json%00",
        "file:///etc/passwd",
    ],
)
def test_no_file_is_served_by_its_name(run, address):
    with serving(run.parent) as ask:
        status, body, _ = ask(address)
        assert (status, body) == (404, b"there is no such page")


def test_it_only_answers_to_its_own_name_and_only_reads(run):
    with serving(run.parent) as ask:
        for name in (
            "localhost",
            "localhost:8000",
            "127.0.0.1:1",
            "127.0.0.1",
            "[::1]:5",
        ):
            assert ask("/data.json", Host=name)[0] == 200, name
        for name in ("evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"):
            assert ask("/data.json", Host=name)[0] == 403, name
        for method in ("POST", "PUT", "DELETE"):
            assert ask("/data.json", method)[0] == 501
        status, body, headers = ask("/", "HEAD")
        assert status == 200 and body == b"" and int(headers["Content-Length"]) > 10**6
    assert live.is_known("any.name", "0.0.0.0")


def test_where_nothing_is_left_the_page_is_told(run):
    with serving(run) as ask:
        for file in run.iterdir():
            file.unlink()
        status, body, _ = ask("/data.json")
        assert status == 503 and "holds no run" in json.loads(body)["error"]
        made.write(run / "again", steps=2)
        assert ask("/data.json")[0] == 200


def test_a_port_that_is_taken_is_told(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} can't be had"):
            live.make_server([str(run)], "127.0.0.1", port)


def test_it_says_where_it_is_and_whom_it_lets_in(run, monkeypatch, capsys):
    def stop(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(live.http.server.ThreadingHTTPServer, "serve_forever", stop)
    live.serve([str(run)], "127.0.0.1", 0)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    live.serve([str(run)], "0.0.0.0", 0)
    assert "anyone who reaches this machine can read it" in capsys.readouterr().out
