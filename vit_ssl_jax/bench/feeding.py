"""Our input here and now: its rate, where an image's time goes, a Pillow loader beside it.

Seconds of a stage are processor time of one thread; the rate is that of the batches that
a run would get, with all its threads or worker processes.
"""

import contextlib
import dataclasses
import functools
import time

import cv2
import jax
import numpy as np
import simplejpeg
from PIL import Image

from vit_ssl_jax import build, partition, step, train_data
from vit_ssl_jax.bench import pillow, resident
from vit_ssl_jax.data import (
    augment,
    decoding,
    draws,
    making,
    pipeline,
    workers,
)

WARM_UP = 2.0  # seconds
LOOKED_AT = 256  # images, for the stages
ROUNDS = 64  # pieces, for the lock


def measure(config, seconds, topology=""):
    """All figures of a config's input: a JSON-able dict.

    topology: for which `plan` tells what a host must deliver; "": not told. Raises
    UserError for data that can't be opened.
    """
    config = config.copy_and_resolve_references()
    _, source, _ = train_data.open_run(config)
    data, cores = config.data, workers.count_cores()
    with config.unlocked():  # which older configs lack
        data.stream = data.get("stream", 1)
    source = dataclasses.replace(source, quick=data.get("pixels") == "fast")
    kept, notes = train_data.keep_decoded(config, source)
    rate, first = run(config, kept, seconds)
    count = min(LOOKED_AT, len(source))
    stages = time_stages(source, train_data.augmentation(data), data.stream, count)
    stages["batch to device"] = time_transfer(config)
    figures = dict(
        recipe=config.recipe,
        images=len(source),
        cores=cores,
        images_per_second=rate,
        images_per_second_of_a_core=rate / cores,
        first_batch_seconds=first,
        microseconds={name: value * 1e6 for name, value in stages.items()},
        microseconds_under_lock=1e6 * time_lock(source, config, count),
        notes=notes,
        pillow=None,
        device_cache=None,
        needed=need(config, topology) if topology else None,
        topology=topology,
    )
    if data.crop and not isinstance(source.read(0)[0], np.ndarray):
        figures["pillow"] = pillow.compare(source, data, count)
    if data.get("device_cache", False):
        figures["device_cache"] = resident.measure(config, source)
    return figures


def run(config, source, seconds):
    """`(images a second, seconds to the first batch)` of what a run would get."""
    begun = time.perf_counter()
    with contextlib.closing(train_data.open_batches(config, source, 0)) as batches:
        next(batches)
        first = time.perf_counter() - begun
        while time.perf_counter() < begun + first + WARM_UP:
            next(batches)
        begun, images = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < seconds:
            images += len(next(batches)["id"])
    return images / passed, first


def time_stages(source, how, stream, count):
    """Processor seconds of an image by stage, one thread: `{stage: seconds}`."""
    transform = augment.make_augmentation(**how)
    seconds = dict.fromkeys(("read", "decode", "crop, resize, augment", "batch"), 0.0)
    out = np.empty((*how["size"], 3), np.uint8)

    def timed(stage, function, *args, **more):
        begun = time.thread_time()
        result = function(*args, **more)
        seconds[stage] += (time.thread_time() - begun) / count
        return result

    for i, rng in enumerate(draws.STREAMS[stream](0, 0, count)):
        image, _ = timed("read", source.read, i)
        try:
            more = dict(alpha=source.alpha, quick=source.quick)
            pixels = timed("decode", decoding.decode, image, **more)
        except (OSError, decoding.BrokenImageError):
            continue
        made = timed("crop, resize, augment", transform, rng, pixels)
        timed("batch", np.copyto, out, made)
    return seconds


def time_transfer(config, rounds=5):
    """Seconds an image of a batch's way to the devices."""
    mesh = build.make_run(config).mesh
    rng = np.random.default_rng(0)
    count = partition.fill_ways(min(config.batch_size, 256), mesh)
    image = rng.integers(0, 256, (count, *augment.train_size(config.data), 3), np.uint8)
    begun = time.perf_counter()
    for _ in range(rounds):
        jax.block_until_ready(step.put_batch({"image": image}, mesh))
    return (time.perf_counter() - begun) / rounds / count


def time_lock(source, config, count):
    """Seconds of an image in which Python's lock is held, at most.

    What a worker does for a batch, with all that works on pixels outside of Python
    (decoder, resize, blur, mirror), which lets go of the lock, left out: processor time of
    what is left.
    """
    data, content = config.data, [source.read(i) for i in range(count)]
    several = range(0, ROUNDS * making.PIECE, making.PIECE)
    source = dataclasses.replace(source, read=lambda i: content[i % count])
    how = train_data.augmentation(data)
    write = pipeline.train_writer(source, config.seed, data.stream, how)
    rows = making.rows_of(source, how["size"])
    with without_pixels():
        out = making.fresh(write, 0, making.PIECE, rows)
        begun = time.thread_time()
        for first in several:
            write(first, out)
        return (time.thread_time() - begun) / ROUNDS / making.PIECE


@contextlib.contextmanager
def without_pixels():
    """Inside, images come out of nothing."""

    def decode(content, *_, **__):
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        return np.empty((height, width, 3), np.uint8)

    sheet = functools.cache(lambda size: np.empty((*size[::-1], 3), np.uint8))
    page = functools.cache(Image.new)
    with contextlib.ExitStack() as stack:
        for place, name, stand_in in (
            (simplejpeg, "decode_jpeg", decode),
            (cv2, "resize", lambda image, size, **_: sheet(size)),
            (cv2, "sepFilter2D", lambda image, *_: image),
            (cv2, "flip", lambda image, _: image),
            (Image.Image, "resize", lambda image, size, *_: page(image.mode, size)),
        ):
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, stand_in)
        yield


def need(config, topology):
    """Images a second that each host of a topology eats, by its plan; None: not known."""
    from vit_ssl_jax.plan import plan  # it brings compilers

    figures = plan(config, topology)
    if figures["images_per_second"] is None:
        return None
    return figures["images_per_second"] / figures["hosts"]


def describe(figures):
    """The figures as lines."""
    micro = figures["microseconds"]
    lines = [
        f"{figures['recipe']}, {figures['images']:,} images, {figures['cores']} core(s)",
        *figures["notes"],
        (
            f"input: {figures['images_per_second']:,.0f} images/s, "
            f"{figures['images_per_second_of_a_core']:,.0f} a core; the first batch after "
            f"{figures['first_batch_seconds']:.1f} s"
        ),
        "an image: "
        + ", ".join(f"{name} {value:,.0f} us" for name, value in micro.items()),
        f"under Python's lock: {figures['microseconds_under_lock']:,.0f} us of it",
    ]
    if theirs := figures["pillow"]:
        lines.append(
            f"Pillow: {theirs['images_per_cpu_second']:,.0f} images a processor second; "
            f"ours are {theirs['ratio']:.2f} x as many, {theirs['psnr']:.1f} dB from it"
        )
    if there := figures["device_cache"]:
        lines.append(
            f"images on the devices: {there['images_per_second']:,.0f} images/s of "
            f"training, {there['ratio']:.2f} of the step's own "
            f"{there['step_images_per_second']:,.0f}"
        )
    if figures["needed"]:
        enough = figures["images_per_second"] >= figures["needed"]
        share = figures["images_per_second"] / figures["needed"]
        lines.append(
            f"{figures['topology']} eats {figures['needed']:,.0f} images/s a host: "
            f"{'enough' if enough else f'this machine feeds {100 * share:.0f} % of it'}"
        )
    return "\n".join(lines)
