"""Reads images of a source; broken ones are left out, counted and reported once."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import numpy as np

from vit_ssl_jax.data import decoding, patience
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError, printable

MAX_BROKEN_IN_A_ROW = 100

_first_broken = threading.Lock()


def read_whole(source: Source, i: int) -> tuple[np.ndarray, int, int]:
    """Decodes image i or the next that is whole: pixels, label and its number."""
    tries = min(MAX_BROKEN_IN_A_ROW, len(source))
    for candidate in range(i, i + tries):
        candidate %= len(source)
        whole = try_to_read(source, candidate)
        if whole is not None:
            return *whole, candidate
    if tries == len(source):
        raise UserError(f"all {tries} images of {source.name} are broken.")
    raise UserError(
        f"{tries} images in a row can't be decoded in {source.name}, from "
        f"{source.where(i)} on: check that the files are whole."
    )


def try_to_read(source: Source, i: int) -> tuple[np.ndarray, int] | None:
    """Decodes image i: pixels and label. None, noted in `source.broken`, if broken.

    Raises UserError where all images can't be read any more, see `patience.read`.
    """
    try:
        image, label = patience.read(source, i)
        how = dict(quick=source.quick, max_pixels=source.max_pixels)
        return decoding.decode(image, source.alpha, **how), label
    except (OSError, decoding.BrokenImageError) as error:
        _note_broken(source, i, error)
        return None


def _note_broken(source: Source, i: int, error: Exception) -> None:
    """Counts a broken image; warns at a source's first, raises when it is the last."""
    with _first_broken:
        first = not source.broken
        source.broken.add(i)
    if first:
        logging.getLogger(__name__).warning(
            "%s is broken and left out (%s). Further broken images of %s are counted, "
            "not reported.",
            *(printable(str(x)) for x in (source.where(i), error, source.name)),
        )
    if len(source.broken) == len(source):
        raise UserError(f"all {len(source)} images of {source.name} are broken.")


def note_between(source: Source, i: int, last: int) -> None:
    """Notes the broken images from i on, which a worker process has replaced by `last`."""
    while i not in source.broken and try_to_read(source, i) is None and i != last:
        i = (i + 1) % len(source)


def stop_at(source: Source, batches: Iterator, part: float) -> Iterator:
    """Yields the batches until `check_broken` finds too many images broken."""
    with contextlib.closing(batches):
        for batch in batches:
            check_broken(source, part)
            yield batch


def check_broken(source: Source, part: float) -> None:
    """Raises UserError once more than `part` of a source's images is broken.

    One may be, in any case.
    """
    count = len(source.broken)
    if count > max(1, int(part * len(source))):
        raise UserError(
            f"{count} of the {len(source):,} images of {source.name} are broken so far, "
            f"{source.where(min(source.broken))} among them; more than {100 * part:g} % "
            "are too many (config.data.max_broken): copy them again, or raise it, as "
            "--config.data.max_broken=1.0"
        )
