"""Images that are in no data set: paths, arrays and opened images, as a source."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from vit_ssl_jax.data import from_python
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError


def read_images(images: Any) -> Source:
    """A source of what `Encoder.encode` takes; raises UserError for anything else."""
    single = isinstance(images, str | os.PathLike | bytes) or hasattr(images, "convert")
    if single or (hasattr(images, "ndim") and images.ndim == 3):
        images = [images]
    if not isinstance(images, list | tuple):
        return from_python.to_source(images, "images", 0)
    source = from_python.to_source(Opened(images), "images", 0)
    return dataclasses.replace(source, where=lambda i: describe(images, i))


class Opened:
    """A list of images and paths, these read when it is their turn."""

    def __init__(self, images: Sequence):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> Any:
        image = self._images[i]
        if not isinstance(image, str | os.PathLike):
            return image
        try:
            return pathlib.Path(image).expanduser().read_bytes()
        except OSError as error:
            raise UserError(f"{image} can't be read ({error.strerror})") from None


def describe(images: Sequence, i: int) -> str:
    """What to call image `i` in a message: its path, or its number."""
    image = images[i]
    return str(image) if isinstance(image, str | os.PathLike) else f"image {i}"
