"""Our pixels beside those that Pillow makes of the same crops: how fast, how near."""

import io
import time

import numpy as np
from PIL import Image

from vit_ssl_jax import train_data
from vit_ssl_jax.data import augment, crops, decoding, draws, reading, resizing


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
