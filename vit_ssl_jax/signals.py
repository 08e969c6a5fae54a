"""Stopping on request: SIGTERM (preemption) and Ctrl-C."""

import contextlib
import signal
import threading


class Stopped(Exception):
    """Raised where work ends because a signal asked to stop."""


@contextlib.contextmanager
def stop_on_signal():
    """Yields a list that SIGTERM or Ctrl-C fills; a second signal interrupts at once.

    Outside the main thread (a notebook's worker) signals stay as they are.
    """
    asked = []

    def handler(number, frame):
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
