"""Stopping on request: SIGTERM (preemption) and Ctrl-C."""

import contextlib
import itertools
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

PATIENCE = 10.0  # seconds that a batch may still take once a signal asked to stop


class Stopped(Exception):
    """Raised where work ends because a signal asked to stop."""


class Late(Exception):
    """Raised where what is waited for doesn't come, PATIENCE seconds after a signal.

    A thread may still wait for it then: the process can't end by itself.
    """

    raised = False


class Requests(list):
    """The signals that asked to stop; `waiting`: whether a wait may be left for one."""

    waiting = False


@contextlib.contextmanager
def stop_on_signal():
    """Yields a list that SIGTERM or Ctrl-C fills; a second signal interrupts at once.

    Outside the main thread (a notebook's worker) signals stay as they are. With several
    processes the list stays empty: jax hears SIGTERM, and `stop_now` what it tells all.
    """
    stop_requested, alone = Requests(), jax.process_count() == 1

    def interrupt():
        """What a second signal does: a command leaves at once, Python itself raises."""
        old = before.get(signal.SIGINT)
        return old if callable(old) else signal.default_int_handler

    def handler(number, frame):
        if stop_requested:
            interrupt()(number, frame)
        stop_requested.append(number)
        if stop_requested.waiting:
            set_alarm(PATIENCE)

    def wake(number, frame):
        del number, frame
        if stop_requested.waiting:
            Late.raised = True
            raise Late

    def pass_on(number, frame):
        signal.signal(number, interrupt())
        os.kill(os.getpid(), signal.SIGTERM)

    handlers = {signal.SIGTERM: handler, signal.SIGINT: handler}
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = wake
    if not alone:
        handlers = {signal.SIGINT: pass_on}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {s: signal.getsignal(s) for s in handlers}
    for number, new in handlers.items():
        signal.signal(number, new)
    try:
        yield stop_requested
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def may_be_left(stop_requested):
    """Raises Late inside, PATIENCE seconds after a signal: for a read that never ends.

    `stop_requested` is from `stop_on_signal`; of several processes nothing is left.
    """
    if not isinstance(stop_requested, Requests):
        yield
        return
    stop_requested.waiting = True
    if stop_requested:
        set_alarm(PATIENCE)
    try:
        yield
    finally:
        stop_requested.waiting = False
        if stop_requested:
            set_alarm(0)


def set_alarm(seconds):
    """Has SIGALRM come after some seconds, 0: never; Windows has none."""
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


class Agreed:
    """True once several processes shall stop, for all of them at the same look.

    So all have to look equally often.
    """

    def __init__(self):
        self._looks, self._stopped = itertools.count(), False

    def __bool__(self):
        self._stopped = self._stopped or stop_now((), next(self._looks))
        return self._stopped


def agree(stop_requested):
    """What is true once to stop: of `stop_on_signal`, or all processes' agreement."""
    return stop_requested if jax.process_count() == 1 else Agreed()


def stop_now(stop_requested, step):
    """Whether to stop before `step`; of several processes all are told the same.

    `stop_requested` is from `stop_on_signal`. To be called at every step on every
    process.
    """
    if jax.process_count() == 1:
        return bool(stop_requested)
    return multihost_utils.reached_preemption_sync_point(step)
