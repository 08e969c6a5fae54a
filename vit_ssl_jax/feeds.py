"""What a run's steps are fed with: batches of the host, or images on the devices."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from vit_ssl_jax import device_cache, step, train_data
from vit_ssl_jax.data import whole


@dataclasses.dataclass(frozen=True)
class Feed:
    """Feeds a step's program, or a span's."""

    most: int  # steps that a call may take
    take: Callable  # (number of steps) -> what this process makes for them
    put: Callable  # that -> the second argument of `Program.step`, on the devices
    close: Callable


def keep(config, source):
    """What stays in memory, by the config: `(source, images for devices, lines)`."""
    loaded, lines = device_cache.load(config, source)
    if not loaded:
        source, lines = train_data.keep_decoded(config, source)
    return source, loaded, lines


def choose(config, run, source, loaded):
    """The run, its step that of the feed; and how to open that: (first step) -> Feed."""
    if not loaded:
        return run, functools.partial(from_host, config, source, run)
    run = device_cache.extend(run, config, loaded)
    return run, functools.partial(from_devices, config, loaded, run)


def from_host(config, source, run, start):
    """Batches that the host makes, one a step, from step `start` on."""
    batches = train_data.open_batches(config, source, start, run.method)

    def put(batch):
        return step.put_batch(batch, run.mesh)

    return Feed(1, lambda _: next(batches), put, batches.close)


def from_devices(config, loaded, run, start):
    """Numbers of images that are on the devices, `device_cache.load`'s, for many steps."""
    ids = whole.numbers(
        loaded,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        shard=(jax.process_index(), jax.process_count()),
    )
    images = device_cache.put(loaded, run.mesh)

    def take(count):
        return [next(ids) for _ in range(count)]

    def put(made):
        return device_cache.put_span(images, made, run.mesh)

    return Feed(device_cache.MOST, take, put, lambda: None)
