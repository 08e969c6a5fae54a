"""What `configs/own.py` leaves open, chosen by the number of images and the device.

docs/own_images.md has the rule in words. Every choice is a line on the console, and a
value that was given stays.
"""

import dataclasses
import math

from vit_ssl_jax.errors import UserError

FEW = 10_000  # images, below which published weights are the better start
LEAST_BATCH, STEPS_PER_EPOCH = 8, 8  # an epoch has so many steps, if there are images
LEAST_EPOCHS, MOST_EPOCHS = 100, 1600
RATE, RATE_BATCH, MOST_RATE = 1e-3, 256, 1.5e-3  # of AdamW; by the root of the batch
WARM_UP = 0.1  # of the epochs
SMALL_GPU = 40 * 2**30  # bytes


@dataclasses.dataclass(frozen=True)
class Device:
    """What a class of devices trains in about an hour or two."""

    variant: str
    dtype: str
    batch_size: int  # at most, of all devices
    images: int  # seen in a run, if the epochs allow it


DEVICES = {
    "cpu": Device("Ti/16", "float32", 32, 50_000),
    "gpu24": Device("S/16", "bfloat16", 256, 5_000_000),
    "gpu80": Device("B/16", "bfloat16", 1024, 10_000_000),
    "tpu": Device("B/16", "bfloat16", 1024, 10_000_000),
}


def choose(config, images: int, device: str) -> list[str]:
    """Fills in what is 0 or "" in a config of `configs/own.py`; returns lines to say.

    images: of the training split. device: one of DEVICES, where the config names none.
    Other configs stay as they are. Raises UserError where there are too few images.
    """
    if "own" not in config:
        return []
    device = config.own.device or device
    has, vit, optim = DEVICES[device], config.vit, config.optim
    if images < 2:
        raise UserError(f"config.data.dir: {images} image is too few to learn from")
    vit.variant = vit.variant or has.variant
    vit.dtype = vit.dtype or has.dtype
    config.batch_size = config.batch_size or batch_size(images, has.batch_size)
    if not config.epochs:
        config.epochs = float(min(MOST_EPOCHS, max(LEAST_EPOCHS, has.images // images)))
    optim.warmup_epochs = optim.warmup_epochs or round(WARM_UP * config.epochs, 2)
    if not optim.lr:
        optim.lr = rate(config.batch_size)
    line = (
        f"own images: {images:,} on {device}: ViT-{vit.variant}, batches of "
        f"{config.batch_size}, {config.epochs:g} epochs, rate {optim.lr:.2g}; each is "
        "yours to set (docs/own_images.md)"
    )
    lines = [line]
    if images < FEW and not config.init_from:
        lines.append(
            f"note: {images:,} images are few to learn from alone; an encoder that has "
            "seen more is a better start: --config.init_from=FILE, published weights of "
            "DINOv2, MAE, timm ... (docs/weights.md), or the workdir of a run"
        )
    return lines


def batch_size(images: int, most: int) -> int:
    """A power of two, so that an epoch has STEPS_PER_EPOCH steps where it can."""
    wanted = max(min(most, images // STEPS_PER_EPOCH), min(LEAST_BATCH, images))
    return 2 ** int(math.log2(wanted))


def rate(batch: int) -> float:
    """The peak rate of a batch: it grows as its root does, to a bound."""
    return min(RATE * math.sqrt(batch / RATE_BATCH), MOST_RATE)


def class_of(platform: str, memory: int | None) -> str:
    """The class of a device: its jax platform, and its bytes of memory (None: unknown)."""
    if platform == "gpu":
        return "gpu24" if memory is not None and memory < SMALL_GPU else "gpu80"
    return platform if platform in DEVICES else "cpu"
