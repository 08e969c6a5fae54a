"""What bounds the input of a host: the parent of workers, and Python's lock in each.

python -m tests.studies.bench_workers --images=DIR

Prints the images a second that one parent hands on when making them is free, the
microseconds that Python's lock is held for an image in a worker, and what that allows.
"""

import argparse
import itertools
import sys
import threading
import time

import numpy as np

from vit_ssl_jax.data import augment, draws, making, pool, reading, sources

SIZE, BATCH, PIECE = (224, 224), 256, 32
CROP = dict(
    size=SIZE,
    crop=(0.2, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip=True,
    interpolation="bicubic",
    resize=256,
)


def make_nothing(first, out):
    """A piece of constants."""
    out["image"][:] = 7
    out["id"][:] = first


def measure_parent(processes, seconds=3.0):
    """Images a second of 224 px through a parent and its workers."""
    rows = making.rows_of(sources.open_source("fake", "", "train"), SIZE)
    numbers = (
        [(n, r, r + PIECE) for r in range(0, BATCH, PIECE)] for n in itertools.count()
    )
    made = pool.batches(
        make_nothing,
        pool.Layout({k: ((BATCH, *s), t) for k, (s, t) in rows.items()}),
        numbers,
        processes=processes,
        threads=1,
        ahead=2,
    )
    for _ in range(20):
        next(made)
    begun, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds:
        images += len(next(made)["id"])
    made.close()
    return images / passed


def measure_lock(source, images=500):
    """Microseconds of an image under Python's lock, and all of its processor time.

    A second thread counts as fast as the lock lets it: what it misses, beside how fast
    it counts alone on a core of its own, is what the first held.
    """
    transform = augment.make_augmentation(**CROP)
    out = {"image": np.empty((PIECE, *SIZE, 3), np.uint8)}

    def work():
        for first in range(0, images, PIECE):
            for row, rng in enumerate(draws.by_counter(0, first, PIECE)):
                image, _, _ = reading.read_whole(source, (first + row) % len(source))
                out["image"][row] = transform(rng, image)

    work()
    sys.setswitchinterval(1e-5)
    alone = count_beside(lambda: time.sleep(1.0))
    begun = time.thread_time()
    rate = count_beside(work)
    used = time.thread_time() - begun
    made = -(-images // PIECE) * PIECE
    return rate, alone, used / made * 1e6, made


def count_beside(work):
    """`(seconds, counts)` of a thread that counts while `work` runs."""
    counts, over = 0, threading.Event()

    def count():
        nonlocal counts
        while not over.is_set():
            counts += 1

    thread = threading.Thread(target=count)
    begun = time.perf_counter()
    thread.start()
    work()
    seconds = time.perf_counter() - begun
    over.set()
    thread.join()
    return seconds, counts


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="folder of photos")
    args = parser.parse_args()
    for processes in (1, 2):
        rate = measure_parent(processes)
        print(f"parent, {processes} worker(s): {rate:,.0f} images/s")
    source, _ = sources.open_files(args.images)
    (seconds, counts), (second, most), used, made = measure_lock(source)
    share = 1 - counts / seconds / (most / second)
    print(f"processor time of an image: {used:,.0f} us")
    print(f"under the lock: {share * seconds / made * 1e6:,.0f} us an image")


if __name__ == "__main__":
    main()
