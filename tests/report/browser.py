"""A browser without a window, driven over a pipe by its own protocol; no package needed."""

import contextlib
import json
import os
import shutil
import subprocess
import time


def find():
    """The browser's program: CHROMIUM in the environment, or one in the PATH; or None."""
    named = os.environ.get("CHROMIUM")
    known = "chromium", "chromium-browser", "google-chrome", "chrome"
    return named or next(filter(None, map(shutil.which, known)), None)


class Browser:
    """One page of it: what it asks the network for and complains of is kept."""

    def __init__(self, profile):
        to_read, to_write = os.pipe(), os.pipe()
        flags = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", "--disable-background-networking"),
            *("--disable-component-update", "--hide-scrollbars"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}"),
        ]

        # Its pipes have the numbers that the protocol wants: it reads 3 and writes 4.
        reads, writes = to_read[0], to_write[1]
        connect = f'exec "$@" 3<&{reads} 4>&{writes}'
        self._process = subprocess.Popen(
            ["bash", "-c", connect, "bash", find(), *flags, "about:blank"],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._in, self._out = os.fdopen(to_read[1], "wb"), os.fdopen(to_write[0], "rb")
        self._count, self._buffer, self._session = 0, b"", None
        self.requests, self.complaints, self._loaded = [], [], False
        pages = self.call("Target.getTargets")["targetInfos"]
        (page,) = [p["targetId"] for p in pages if p["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Sends a command and returns its result; events on the way are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._in.write(json.dumps(message).encode() + b"\0")
        self._in.flush()
        while True:
            got = self._receive()
            if got.get("id") == self._count:
                assert "error" not in got, (method, got["error"])
                return got["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            more = os.read(self._out.fileno(), 1 << 20)
            assert more, "the browser ended"
            self._buffer += more
        first, _, self._buffer = self._buffer.partition(b"\0")
        got = json.loads(first)
        params = got.get("params", {})
        if got.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if got.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:2000])
        said = got.get("method") == "Runtime.consoleAPICalled" and params["type"]
        if said in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:2000])
        if got.get("method") == "Log.entryAdded":
            self.complaints.append(json.dumps(params["entry"])[:2000])
        self._loaded |= got.get("method") == "Page.loadEventFired"
        return got

    def open(self, address, *, width=1280, height=900, dark=False):
        """Opens an address in a window of so many pixels, and waits until it is loaded."""
        screen = dict(width=width, height=height, deviceScaleFactor=1)
        self.call("Emulation.setDeviceMetricsOverride", **screen, mobile=width < 600)
        scheme = dict(name="prefers-color-scheme", value="dark" if dark else "light")
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._receive()

    def run(self, program):
        """The value of an expression of JavaScript in the page."""
        got = self.call(
            "Runtime.evaluate",
            expression=program,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def wait_for(self, program, seconds=60):
        """Waits until an expression is true; returns it."""
        end = time.monotonic() + seconds
        while not (value := self.run(program)):
            assert time.monotonic() < end, f"never true: {program}"
            time.sleep(0.1)
        return value

    def press(self, key, code=0, text=""):
        """Presses a key, named as JavaScript names it."""
        about = dict(key=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about | {"text": ""})

    def picture(self):
        """A PNG of what is seen, in base64."""
        return self.call("Page.captureScreenshot")["data"]

    def close(self):
        """Ends the browser."""
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        self._in.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
