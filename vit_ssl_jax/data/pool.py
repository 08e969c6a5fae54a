"""Worker processes that write batches into memory that they share with this one.

A batch lies in a slot, a block of shared memory with room for all its arrays. Its pieces
are written there by several workers at once, and this process hands on views of it; the
slot is used again once no view of it is left.
"""

import collections
import concurrent.futures
import dataclasses
import logging
import math
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import connection, shared_memory, util

import cloudpickle
import numpy as np

from vit_ssl_jax.data import reading
from vit_ssl_jax.errors import UserError

ALIGNED = 64  # bytes that an array's place in a slot is a multiple of
PATIENCE = 10.0  # seconds that a worker has to finish what it is at


@dataclasses.dataclass(frozen=True)
class Layout:
    """Arrays of a batch in a slot: `{name: (shape, dtype)}`, the batch in front."""

    arrays: dict[str, tuple[tuple[int, ...], str]]

    @property
    def places(self) -> dict[str, tuple[int, tuple[int, ...], str]]:
        """Where they lie: `{name: (first byte, shape, dtype)}`."""
        found, place = {}, 0
        for name, (shape, dtype) in self.arrays.items():
            found[name] = place, shape, dtype
            size = math.prod(shape) * np.dtype(dtype).itemsize
            place += -(-size // ALIGNED) * ALIGNED
        return found

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        last, shape, dtype = list(self.places.values())[-1]
        return last + math.prod(shape) * np.dtype(dtype).itemsize

    def views(self, memory: shared_memory.SharedMemory) -> dict[str, np.ndarray]:
        """The arrays in a slot."""
        return {
            name: np.ndarray(shape, dtype, buffer=memory.buf, offset=place)
            for name, (place, shape, dtype) in self.places.items()
        }


def batches(
    write: Callable[[int, dict[str, np.ndarray]], None],
    layout: Layout,
    numbers: Iterator[list[tuple[int, int, int]]],
    *,
    processes: int,
    threads: int,
    ahead: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches, in order, that worker processes write; has `close()`.

    write: (number, arrays) -> None, writes a piece into its rows of the arrays.
    numbers: of each batch its pieces, `(number, first row, last row)`.
    ahead: batches that are begun before they are asked for.
    Raises UserError for a worker that died, and what `write` raises.
    """
    pool = Pool(write, layout, processes, threads)
    waiting: collections.deque[Job] = collections.deque()
    try:
        numbers = iter(numbers)
        while True:
            while len(waiting) <= ahead and (pieces := next(numbers, None)):
                waiting.append(pool.begin(pieces))
            if not waiting:
                return
            yield pool.finish(waiting.popleft())
    finally:
        pool.close()


@dataclasses.dataclass(eq=False)
class Job:
    """A batch in work: its slot, its rows, and how many of its pieces are left."""

    memory: shared_memory.SharedMemory
    rows: int
    left: int


class Pool:
    """Workers and slots. A pipe to each worker, no lock that one could die with."""

    def __init__(self, write, layout: Layout, processes: int, threads: int):
        self.layout, self.jobs, self.turn = layout, {}, 0
        self.free: list[shared_memory.SharedMemory] = []
        self.slots: list[shared_memory.SharedMemory] = []
        self.lock = threading.RLock()  # views die in any thread, and anywhere in it
        context = multiprocessing.get_context("spawn")
        work = cloudpickle.dumps((write, layout))
        self.workers, self.pipes = [], []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=serve, args=(theirs, work, threads), daemon=True
            )
            worker.start()
            theirs.close()
            self.workers.append(worker)
            self.pipes.append(ours)
        # Before multiprocessing waits for its children at the end of the program.
        self.closing = util.Finalize(
            self,
            end,
            args=(self.workers, self.pipes, self.slots, self.free),
            exitpriority=100,
        )

    def begin(self, pieces: list[tuple[int, int, int]]) -> Job:
        """Has the pieces of a batch made, by the workers in turn."""
        with self.lock:
            memory = self.free.pop() if self.free else None
        if memory is None:
            memory = shared_memory.SharedMemory(create=True, size=self.layout.size)
            self.slots.append(memory)
        job = Job(memory, max(last for _, _, last in pieces), len(pieces))
        self.jobs[memory.name] = job
        for piece in pieces:
            number = self.turn % len(self.pipes)
            try:
                self.pipes[number].send((memory.name, *piece))
            except OSError:
                raise self.explain(number) from None
            self.turn += 1
        return job

    def finish(self, job: Job) -> dict[str, np.ndarray]:
        """The arrays of a batch once all its pieces are there."""
        while job.left:
            for pipe in connection.wait(self.pipes):
                try:
                    name, error = pipe.recv()
                except (EOFError, OSError):
                    raise self.explain(self.pipes.index(pipe)) from None
                if error:
                    raise cloudpickle.loads(error)
                self.jobs[name].left -= 1
        del self.jobs[job.memory.name]
        arrays = self.layout.views(job.memory)
        count = [len(arrays)]
        for array in arrays.values():
            weakref.finalize(array, self.release, job.memory, count).atexit = False
        return {name: array[: job.rows] for name, array in arrays.items()}

    def release(self, memory, count: list[int]) -> None:
        """Takes a slot back when the last of its arrays is gone.

        numpy doesn't hold shared memory open: it is closed here at the earliest.
        """
        with self.lock:
            count[0] -= 1
            if not count[0] and self.closing.still_active():
                self.free.append(memory)
            elif not count[0]:
                memory.close()

    def explain(self, number: int) -> UserError:
        """What to say of a worker that is gone."""
        self.workers[number].join(PATIENCE)
        code = self.workers[number].exitcode
        return UserError(
            f"a worker process of the input died (exit code {code}; -9 is often a want "
            "of memory); the same command continues from the last checkpoint, "
            "--config.data.workers=N takes fewer, 0 none"
        )

    def close(self) -> None:
        """Ends the workers and gives the memory back."""
        self.closing()


def end(workers, pipes, slots, free) -> None:
    """Ends workers, by force if need be, and removes slots; views of them stay valid."""
    for pipe in pipes:
        pipe.close()
    for worker in workers:
        worker.join(PATIENCE)
        if worker.exitcode is None:
            worker.kill()
            worker.join()
    for memory in slots:
        memory.unlink()
    for memory in free:
        memory.close()


def serve(pipe, work: bytes, threads: int) -> None:
    """A worker: makes the pieces that it is told to, until its parent hangs up.

    Signals are for the parent, which ends its workers when it has saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Of broken images the parent reports.
    logging.getLogger(reading.__name__).setLevel(logging.ERROR)
    write, layout = cloudpickle.loads(work)
    slots: dict[str, dict[str, np.ndarray]] = {}
    memories, lock = [], threading.Lock()

    def make(name: str, number: int, first: int, last: int) -> None:
        error = b""
        try:
            write(number, {k: v[first:last] for k, v in slots[name].items()})
        except BaseException as raised:  # noqa: BLE001 - the parent raises it
            error = dump(raised)
        with lock:
            pipe.send((name, error))

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while True:
            try:
                name, *piece = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)  # whatever its threads are at
            if name not in slots:
                memories.append(shared_memory.SharedMemory(name))
                slots[name] = layout.views(memories[-1])
            pool.submit(make, name, *piece)


def dump(error: BaseException) -> bytes:
    """An error for another process: pickled, or its words where that can't be."""
    try:
        return cloudpickle.dumps(error)
    except Exception:  # noqa: BLE001 - whatever it holds
        return cloudpickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
