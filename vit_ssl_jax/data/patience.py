"""Waits for images that can't be read for a while: a network mount that is lost."""

import errno
import logging
import threading
import time

import numpy as np

from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

# What a mount that is lost, or empty, fails with. A file that may not be read, say, stays so.
LOST = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNREFUSED),
}
OTHERS = 3  # images that are tried beside one that can't be read
EVERY = 2.0  # seconds between two looks

_saying = threading.Lock()
_said: set[str] = set()  # names of sources that are waited for, and a line says so


def read(source: Source, i: int) -> tuple[bytes | np.ndarray, int | np.ndarray]:
    """What `source.read(i)` gives, after a wait where all images are lost.

    Raises its OSError where it is this image alone, and UserError once the others can't
    be read for `source.retry_seconds`, either.
    """
    try:
        return source.read(i)
    except OSError as error:
        if not is_lost(source, i, error):
            raise
        first = error
    _say(source, first)
    deadline = time.monotonic() + source.retry_seconds
    while time.monotonic() < deadline:
        time.sleep(min(EVERY, source.retry_seconds))
        try:
            found = source.read(i)
        except OSError as error:
            if not is_lost(source, i, error):
                raise
        else:
            _say(source, None)
            return found
    raise UserError(
        f"{source.name} can't be read any more ({first}), nor can other images of it, for "
        f"{source.retry_seconds:g} s (config.data.retry_seconds): see that its disk or "
        "network mount is there; the same command goes on"
    ) from first


def is_lost(source: Source, i: int, error: OSError) -> bool:
    """Whether images far from image i can't be read now, either."""
    if error.errno not in LOST:
        return False
    step = -(-len(source) // (OTHERS + 1))
    others = {(i + k * step) % len(source) for k in range(1, OTHERS + 1)} - {i}
    return bool(others) and not any(_is_readable(source, j) for j in others)


def _is_readable(source: Source, i: int) -> bool:
    try:
        source.read(i)
    except OSError:
        return False
    return True


def _say(source: Source, error: OSError | None) -> None:
    """Says once that a source is waited for, because of an error; or that it is back."""
    logger = logging.getLogger(__name__)
    with _saying:
        waited = source.name in _said
        if error and not waited:
            _said.add(source.name)
            logger.error(
                "%s can't be read (%s): waiting up to %g s for it to come back "
                "(config.data.retry_seconds)",
                *(source.name, error, source.retry_seconds),
            )
        elif waited and not error:
            _said.discard(source.name)
            logger.error("%s can be read again", source.name)
