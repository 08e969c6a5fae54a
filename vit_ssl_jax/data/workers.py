"""Who prepares batches: threads of this process, or worker processes; how many."""

import dataclasses
import logging
import os
import pathlib
import shutil
import sys

from vit_ssl_jax.data import reading
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError

THREADS = 2  # of a worker: one reads while the other decodes
MAX_THREADS = 32  # without workers
FEW_CORES = 8  # that one process's threads keep busy
SMALL = 64 * 64 * 3  # numbers in an image
SCRIPT = (
    "the program is a script, which workers may not import; start it as a module, or put "
    "its work under __name__ == '__main__' and set config.data.workers"
)
SHARED = pathlib.Path("/dev/shm")
SLOTS = 5  # batches in shared memory: ahead, in use, and on their way to a device


@dataclasses.dataclass(frozen=True)
class Hands:
    """Who prepares batches: `processes` of `threads` each; 0: threads of this one."""

    processes: int
    threads: int


def choose(
    source: Source, processes: int | None, threads: int | None, batch_bytes: int
) -> Hands:
    """Fills in what is None, by the number of cores and the size of images.

    Processes need a source that they can open, a program that they may import and
    shared memory for batches of `batch_bytes`. Raises UserError where they are asked for
    and can't be.
    """
    cores = count_cores()
    small = is_small(source)
    reason = find_reason(source, batch_bytes)
    if processes is None:
        worth = cores > FEW_CORES and source.portable
        reason = reason or ("" if is_importable() else SCRIPT)
        if worth and reason:
            logger = logging.getLogger(__name__)
            logger.warning("input: threads instead of worker processes, for %s", reason)
        processes = cores if worth and not reason else 0
    elif processes and reason:
        raise UserError(
            f"config.data.workers: {reason}; --config.data.workers=0 takes threads"
        )
    if threads is None:
        # Small images keep Python busier than the decoder: threads only fight for its
        # lock.
        most = THREADS if processes else min(cores, MAX_THREADS)
        threads = 1 if small else most
    return Hands(processes, threads)


def count_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_small(source: Source) -> bool:
    """Whether images, by the first three, are small."""
    first = [reading.try_to_read(source, i) for i in range(min(3, len(source)))]
    return all(whole is None or whole[0].size < SMALL for whole in first)


def find_reason(source: Source, batch_bytes: int) -> str:
    """Says why there can be no worker processes; "": there can be."""
    if not source.portable:
        return (
            f"{source.name} is in this process's memory, where workers don't get at it"
        )
    needed = SLOTS * batch_bytes
    if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < needed:
        return (
            f"batches take {needed / 2**20:,.0f} MiB of shared memory, and {SHARED} has "
            f"{free / 2**20:,.0f} (docker run --shm-size=8g)"
        )
    return ""


def is_importable() -> bool:
    """Whether a worker may import the program: a module or a notebook, not a script.

    A script that does its work when it is imported would start workers in every worker.
    """
    main = sys.modules["__main__"]
    return bool(getattr(main, "__spec__", None)) or not hasattr(main, "__file__")
