"""Check of the training data: read for some seconds, beside what a step would eat."""

import contextlib
import time

import jax

from vit_ssl_jax import build, train_data
from vit_ssl_jax.doctor import findings
from vit_ssl_jax.errors import UserError

BATCH = 32  # images at a time, of each process
WARM_UP = 1.0  # seconds until threads are at work and what they made before is used up
CURE = "look at --config.data.name, --config.data.dir and what is there"
BROKEN = (
    "a run puts the next whole image in place of a broken one; look at the files, or "
    "copy them again"
)
SLOW = (
    "--config.data.workers=N processes (-1: by the number of cores), images stored "
    "smaller, a faster disk, or a host with more cores"
)


def check(config, speed, seconds):
    """A finding on `seconds` of reading; `speed`: FLOP/s of the blocks, None: unknown.

    `config` stays as it is.
    """
    copy = config.copy_and_resolve_references()
    try:
        _, source, lines = train_data.open_run(copy)
        copy.batch_size = BATCH * jax.process_count()
        with contextlib.closing(train_data.open_batches(copy, source, 0)) as batches:
            rate = measure(batches, seconds)
    except UserError as error:
        return findings.make("data", False, str(error), CURE)
    numbers = dict(images=len(source), images_per_second=rate)
    text = "; ".join(line.removeprefix("data: ") for line in lines)
    text = f"{text}; {rate:,.0f} images/s"
    if source.broken:
        where = source.where(min(source.broken))
        text = f"{len(source.broken)} of the images read are broken, {where}; {text}"
        return findings.make("data", False, text, BROKEN, **numbers)
    if speed is None:
        text += "; beside what a step eats: left out, for the blocks weren't timed"
        return findings.make("data", True, text, **numbers)
    eaten = find_need(config, speed)
    text += f" of about {eaten:,.0f} that steps eat (by the speed of the blocks above)"
    numbers["images_per_second_eaten"] = eaten
    # No verdict where a CPU reads with the cores that it trains with, or devices have all.
    there = copy.data.get("device_cache", False)
    ok = rate >= eaten or jax.default_backend() == "cpu" or there
    text += ", which the devices' own images feed (config.data.device_cache)" * there
    return findings.make("data", ok, text, "" if ok else SLOW, **numbers)


def measure(batches, seconds):
    """Images a second that `batches` give, once they are under way."""
    begun, images = time.perf_counter(), 0
    while time.perf_counter() < begun + WARM_UP:
        next(batches)
    begun = time.perf_counter()
    while time.perf_counter() < begun + seconds:
        images += len(next(batches)["id"])
    return images / (time.perf_counter() - begun)


def find_need(config, speed):
    """Images a second that each process eats, of steps with `speed` FLOP/s in all."""
    flops = build.step_flops(config) / config.batch_size
    return speed / flops / jax.process_count()
