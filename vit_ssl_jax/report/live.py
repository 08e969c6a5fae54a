"""The page served while runs train: three addresses, and no file by its name."""

import contextlib
import hashlib
import http.server
import ipaddress
import json
import re
import socket
import threading
import time

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.report import page, pictures, reading
from vit_ssl_jax.results import runs
from vit_ssl_jax.workdir.files import is_stored

FILES = ("config.json", "metrics.jsonl", "data.json", "versions.json", "summary.json")
AGAIN = 2.0  # seconds before files are looked at again,
SPARED = 10  # or so many times as long as reading them took


class Runs:
    """What there is to show of runs, read again where their files have changed."""

    def __init__(self, paths):
        self._paths, self._lock = paths, threading.Lock()
        self._next, self._tag, self._answers = 0.0, "", {}

    def answer(self, address):
        """The body (bytes) and the tag of an address; UserError where nothing is left."""
        with self._lock:
            begun = time.monotonic()
            if not self._answers or begun > self._next:
                tag = look(self._paths)
                if tag != self._tag:
                    made = map(page.as_json, reading.collect(self._paths))
                    names = "/data.json", "/pictures.json"
                    self._answers = dict(zip(names, (text.encode() for text in made)))
                self._tag, now = tag, time.monotonic()
                self._next = now + max(AGAIN, SPARED * (now - begun))
            body = self._answers[address]
        return body, hashlib.sha256(body).hexdigest()[:16]


def look(paths):
    """A text that changes where a file of the runs does."""
    seen = hashlib.sha256()
    for folder in runs.find_folders(paths):
        files = [folder / name for name in FILES]
        files += sorted(folder.glob("evaluations/*.json"))
        for panel in pictures.find(folder, 0).values():
            files += [file for _, file in panel]
        for file in files:
            with contextlib.suppress(OSError):
                about = file.stat()
                told = str(file), about.st_mtime_ns, about.st_size
                seen.update(repr(told).encode(errors="surrogateescape"))
    return seen.hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD of three addresses, and nothing else."""

    protocol_version = "HTTP/1.1"
    shown, page, tag, host = None, b"", "", ""  # of a server

    def do_GET(self):
        """Sends the page or its data, or 304 where the reader has it."""
        if not is_known(self.headers.get("Host", ""), self.host):
            return self.reply(403, b"another name than this machine's", "text/plain")
        address = self.path.partition("?")[0]
        try:
            if address in ("/", "/index.html"):
                self.reply(200, self.page, "text/html; charset=utf-8", self.tag)
            elif address in ("/data.json", "/pictures.json"):
                body, tag = self.shown.answer(address)
                self.reply(200, body, "application/json", tag)
            else:
                self.reply(404, b"there is no such page", "text/plain")
        except UserError as error:
            body = json.dumps({"error": str(error)}).encode()
            self.reply(503, body, "application/json")

    do_HEAD = do_GET

    def reply(self, status, body, kind, tag=""):
        """Sends an answer."""
        if tag and self.headers.get("If-None-Match") == f'"{tag}"':
            status, body = 304, b""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing of each request."""


def make_server(paths, host, port):
    """A server of the runs at or below `paths`, not yet started.

    Raises UserError where they hold none, or the place can't be had.
    """
    for path in paths:
        if is_stored(path):
            raise UserError(
                f"--live reads folders of this machine, and {path} isn't one; write a "
                f"page instead: python -m vit_ssl_jax.report {path}"
            )
    shown = Runs(paths)
    shown.answer("/data.json")
    empty = {"runs": [], "sections": [], "evaluations": [], "notes": []}
    text = page.make_page(empty, {"runs": {}, "notes": []}, live=True).encode()
    tag = hashlib.sha256(text).hexdigest()[:16]

    bound = dict(shown=shown, page=text, tag=tag, host=host)
    handler = type("Bound", (Handler,), bound)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = type(
            "Server", (http.server.ThreadingHTTPServer,), {"address_family": family}
        )
        return kind((host, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host={host} --port={port} can't be had ({error}); give another --port, 0 "
            "for any that is free"
        ) from error


def is_loopback(host):
    """Whether an address is this machine's own, which no other reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_known(name, host):
    """Whether a request that calls the server by `name` may be answered.

    On loopback only by loopback's own names: a page from elsewhere, whose name is made to
    point here, gets nothing.
    """
    if not is_loopback(host):
        return True
    return is_loopback(re.sub(r":\d+$", "", name).strip("[]"))


def serve(paths, host, port):
    """Serves the runs until Ctrl-C."""
    with make_server(paths, host, port) as server:
        place = f"[{host}]" if ":" in host else host
        print(
            f"http://{place}:{server.server_address[1]}/ (Ctrl-C ends it)", flush=True
        )
        if not is_loopback(host):
            print("note: anyone who reaches this machine can read it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
