"""What bounds the input of a host: the parent of workers, and Python's lock in each.

python -m tests.studies.bench_workers --images=DIR

Prints the images a second that one parent hands on when making them is free, the
microseconds that Python's lock is held for an image in a worker.
"""

import argparse
import dataclasses
import itertools
import time

from vit_ssl_jax import recipes
from vit_ssl_jax.bench import feeding
from vit_ssl_jax.data import making, pool, sources

IMAGENET = 1_281_167  # images, in whose order these are taken
SIZE, BATCH, PIECE = (224, 224), 256, 32


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


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="folder of photos")
    args = parser.parse_args()
    for processes in (1, 2):
        rate = measure_parent(processes)
        print(f"parent, {processes} worker(s): {rate:,.0f} images/s")
    source, _ = sources.open_files(args.images)
    config = recipes.load("mae_vitb.py")
    count = min(len(source), 256)
    source = dataclasses.replace(source, length=IMAGENET)  # only its order is longer
    held = feeding.time_lock(source, config, count)
    print(f"under the lock: {1e6 * held:,.0f} us an image")


if __name__ == "__main__":
    main()
