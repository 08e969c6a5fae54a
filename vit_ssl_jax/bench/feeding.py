"""Our input here and now: its rate, where an image's time goes, a Pillow loader beside it.

Seconds of a stage are processor time of one thread; the rate is that of the batches that
a run would get, with all its threads or worker processes.
"""

import contextlib
import dataclasses
import functools
import io
import time

import cv2
import jax
import numpy as np
import simplejpeg
from PIL import Image

from vit_ssl_jax import build, partition, step, train_data
from vit_ssl_jax.data import (
    augment,
    crops,
    decoding,
    draws,
    making,
    pipeline,
    reading,
    resizing,
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
        needed=need(config, topology) if topology else None,
        topology=topology,
    )
    if data.crop and not isinstance(source.read(0)[0], np.ndarray):
        figures["pillow"] = compare(source, data, count)
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
    image = rng.integers(0, 256, (count, *config.data.size, 3), np.uint8)
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
    rows = making.rows_of(source, data.size)
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


def compare(source, data, count):
    """The same crops by Pillow alone, taking turns: our ratio, and how near we are.

    ratio: images a processor second of ours over Pillow's. psnr: decibels, of all pixels.
    """
    how = train_data.augmentation(data)
    ours_by = augment.make_augmentation(**how | {"randaugment": ""})
    seconds, error = [0.0, 0.0], []
    for i in range(count):
        image, _ = source.read(i)
        if reading.try_to_read(source, i) is None:
            continue
        made = []
        for turn, load in enumerate((load_ours, load_by_pillow)):
            (rng,) = draws.STREAMS[data.stream](0, i, 1)
            begun = time.thread_time()
            made.append(load(image, rng, source, ours_by, how))
            seconds[turn] += time.thread_time() - begun
        error.append(np.mean((made[0].astype(np.float64) - made[1]) ** 2))
    psnr = 10 * np.log10(255**2 / np.mean(error)) if np.mean(error) else np.inf
    return dict(
        ratio=seconds[1] / seconds[0],
        images_per_cpu_second=len(error) / seconds[1],
        psnr=float(psnr),
    )


def load_ours(image, rng, source, transform, how):
    """An image as a run gets it."""
    return transform(rng, decoding.decode(image, source.alpha, quick=source.quick))


def load_by_pillow(image, rng, source, transform, how):
    """The same as the published recipes do it: Pillow decodes, crops, resizes, flips."""
    pixels = Image.open(io.BytesIO(image)).convert("RGB")
    draw = dict(scale=how["crop"], ratio=how["ratio"])
    shape = pixels.size[1], pixels.size[0]
    top, left, height, width = crops.draw_box(rng, shape, **draw)
    pixels = pixels.crop((left, top, left + width, top + height))
    method = resizing.RESAMPLING[how["interpolation"]]
    pixels = pixels.resize((how["size"][1], how["size"][0]), method)
    if how["flip"] and rng.random() < 0.5:
        pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(pixels)


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
    if pillow := figures["pillow"]:
        lines.append(
            f"Pillow: {pillow['images_per_cpu_second']:,.0f} images a processor second; "
            f"ours are {pillow['ratio']:.2f} x as many, {pillow['psnr']:.1f} dB from it"
        )
    if figures["needed"]:
        enough = figures["images_per_second"] >= figures["needed"]
        share = figures["images_per_second"] / figures["needed"]
        lines.append(
            f"{figures['topology']} eats {figures['needed']:,.0f} images/s a host: "
            f"{'enough' if enough else f'this machine feeds {100 * share:.0f} % of it'}"
        )
    return "\n".join(lines)
