"""An encoder and the images that are drawn of it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_ssl_jax import encoder as encoders
from vit_ssl_jax import finished
from vit_ssl_jax.data import folder, reading, sources
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError, printable
from vit_ssl_jax.models import variants
from vit_ssl_jax.visualize import attention

BATCH = 8  # images at a time, of which every patch is kept
LONG = 16  # letters of a name


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An encoder, images, and what was chosen.

    checkpoint: where the encoder is from. whole: all images, None where none were given.
    shown: those that are drawn. layer: 1 to the depth. patch: (row, column). query: as
    in `attention.find_query`. pool: of an image's vector, "mean" or "cls".
    top: the folder that names begin below.
    """

    encoder: encoders.Encoder
    checkpoint: Any
    whole: Source | None
    shown: Source | None
    layer: int
    patch: tuple[int, int]
    query: str | int
    pool: str
    top: str

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """The images that are drawn, as the encoder sees them: uint8 `[n H W 3]`."""
        return read_pixels(self.encoder, self.shown)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """Features of their patches: float32 `[n N D]`."""
        how = dict(layer=self.layer, pool="patches", batch_size=BATCH)
        return self.encoder.features(self.shown, **how)

    @property
    def names(self) -> list[str]:
        """What to call them in a picture."""
        return [name_of(self.shown, i, self.top) for i in range(len(self.shown))]

    @property
    def number(self) -> int:
        """The chosen patch's number, 0 to N - 1."""
        return self.patch[0] * self.encoder.module.grid[1] + self.patch[1]


def open_scene(
    checkpoint: Any,
    images: Any = "",
    *,
    count: int = 8,
    layer: int = 0,
    patch: tuple[int, int] | None = None,
    query: str = "",
    pool: str = "mean",
    size: tuple[int, int] | None = None,
    say: Callable[[str], None] = print,
) -> Scene:
    """Loads an encoder and finds the images of it that are drawn.

    count: at most so many. layer: the block, as in `Encoder.features`. patch: (row,
    column) that others are compared with, the middle one where it is None. query: whose
    attention, "cls", "mean" or "patch"; "" is the class token where there is one. size:
    (height, width) of the images in pixels. Raises UserError for what isn't there.
    """
    whole = None if isinstance(images, str) and not images else open_images(images, say)
    if size:
        check_size(checkpoint, size)
    encoder = encoders.load(checkpoint, size=size, say=say)
    layer = encoder.find_layer(layer, pool)
    if pool == "patches":
        raise UserError("pool 'patches': an image needs one vector; use mean or cls")
    patch = check_patch(encoder.module.grid, patch)
    number = patch[0] * encoder.module.grid[1] + patch[1]
    query = attention.find_query(encoder.module, number if query == "patch" else query)
    shown = None if whole is None else choose_whole(whole, count, say)
    paths = isinstance(images, str | os.PathLike)
    top = os.path.expanduser(images) if paths and images else ""
    chosen = dict(layer=layer, patch=patch, query=query, pool=pool, top=top)
    return Scene(encoder, checkpoint, whole, shown, **chosen)


def open_images(images: Any, say: Callable) -> Source:
    """The images of a folder, of files with commas between them, or from Python."""
    if not isinstance(images, str | os.PathLike):
        return encoders.read_images(images)
    paths = split_paths(os.fspath(images))
    if len(paths) == 1 and ("://" in paths[0] or os.path.isdir(paths[0])):
        source, lines = sources.open_files(paths[0])
        for line in lines:
            say(line)
        return source
    files = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        top, found, lines = folder.list_files(os.fspath(path))
        files += [top / name for name in found]
        for line in lines:
            say(line)
    return Source(
        name="the files given",
        length=len(files),
        read=lambda i: (sources.read_file(files[i], stored=False), -1),
        where=lambda i: str(files[i]),
        files=True,
        portable=True,
    )


def split_paths(text: str) -> list[str]:
    """The paths of `--images`; raises UserError for one that isn't there."""
    whole = "://" in text or os.path.exists(os.path.expanduser(text))
    paths = [text] if whole else [part.strip() for part in text.split(",")]
    paths = [os.path.expanduser(path) for path in paths if path]
    for path in paths:
        if "://" not in path and not os.path.exists(path):
            raise UserError(f"--images={path}: there is no such file or folder")
    return paths


def check_size(checkpoint: Any, size: tuple[int, int]) -> None:
    """Raises UserError where the encoder's patch doesn't divide the size."""
    variant = finished.read_trained(checkpoint).config.vit.variant
    patch = variants.decode(variant)["patch"]
    if any(side % patch or side < patch for side in size):
        near = "x".join(str(max(1, round(side / patch)) * patch) for side in size)
        raise UserError(
            f"--size={size[0]}x{size[1]}: the patch of {patch} px doesn't divide it; "
            f"give {near}"
        )


def check_patch(
    grid: tuple[int, int], patch: tuple[int, int] | None
) -> tuple[int, int]:
    """A patch's row and column, the middle one for None; UserError outside the grid."""
    if patch is None:
        return grid[0] // 2, grid[1] // 2
    if not all(0 <= place < side for place, side in zip(patch, grid, strict=True)):
        raise UserError(
            f"--patch={patch[0]},{patch[1]}: the grid has rows 0 to {grid[0] - 1} and "
            f"columns 0 to {grid[1] - 1}"
        )
    return tuple(patch)


def choose_whole(source: Source, count: int, say: Callable) -> Source:
    """The first images that can be read, at most `count`; others are said."""
    found = []
    for i in range(len(source)):
        if reading.try_to_read(source, i) is None:
            say(f"left out, for it can't be read: {source.where(i)}")
        else:
            found.append(i)
        if len(found) == count:
            break
    return source.pick(found)


def read_pixels(encoder: encoders.Encoder, source: Source) -> np.ndarray:
    """Images as the encoder sees them: uint8 `[n H W 3]`."""
    return encoder.run(lambda _, image: image, source, batch_size=BATCH)


def name_of(source: Source, i: int, top: str = "") -> str:
    """What to call an image in a picture: its path below `top`, shortened."""
    path = pathlib.PurePath(printable(source.where(i)))
    if top and path.is_relative_to(top):
        parts = path.relative_to(top).with_suffix("").parts
    else:
        parts = (path.stem,)
    return "/".join(x if len(x) <= LONG else f"{x[: LONG - 2]}.." for x in parts[-2:])
