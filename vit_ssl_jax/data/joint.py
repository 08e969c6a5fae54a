"""Augments an image and its map together: rotation, scale, crop, mirror, then colours.

As mmsegmentation and the Monocular-Depth-Estimation-Toolbox do it, by whose pipelines
DINOv2 was judged. Images are resized as there, by OpenCV without antialiasing.
"""

import dataclasses

import cv2
import numpy as np

from vit_ssl_jax.data import distortion, maps
from vit_ssl_jax.errors import UserError

FILL = (124, 116, 104)  # outside of an image: ImageNet's mean, which standardised is 0
KERNELS = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
LONGEST = 4  # long side in short sides of the scale (2048 x 512): longer ones shrink
TRIES = 10  # crops that are tried for one that isn't mostly of a class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """How training pairs are made; `(H, W) = size` of what comes out."""

    size: tuple[int, int]
    short: int  # side in pixels that the short one becomes before scaling; 0: as it is
    scale: tuple[float, float]  # the range of a factor of both sides
    flip: bool  # half of the pairs
    border: tuple[int, ...] = ()  # (top, bottom, left, right) of what is used; (): all
    degrees: float = 0.0  # half of the pairs are turned by up to so much
    most: float = 1.0  # part of a crop that one class may have
    distortion: str = ""  # of `distortion.KINDS`; "": none
    interpolation: str = "bilinear"

    def __call__(self, rng, image, read, kind: maps.Kind):
        """`uint8 [h w 3], [h w] -> uint8 [H W 3], [H W]`."""
        if self.border:
            image, read = (cut_border(x, self.border) for x in (image, read))
        if self.degrees and rng.random() < 0.5:
            angle = rng.uniform(-self.degrees, self.degrees)
            image, read = rotate(image, read, angle, kind)
        factor = rng.uniform(*self.scale) if self.scale[0] < self.scale[1] else None
        shape = scaled(read.shape, self.short, factor or self.scale[0])
        image, read = resize(image, shape, self.interpolation), fit(read, shape, kind)
        top, left = self.place(rng, read, kind)
        image = cut(image, top, left, self.size, FILL)
        read = cut(read, top, left, self.size, kind.none)
        if self.flip and rng.random() < 0.5:
            image, read = cv2.flip(image, 1), cv2.flip(read, 1)
        return distortion.distort(rng, image, self.distortion), read

    def place(self, rng, read, kind):
        """Where a crop begins, by chance; one mostly of a single class is drawn anew."""
        for _ in range(TRIES):
            place = [
                int(rng.integers(0, max(have - want, 0), endpoint=True))
                for have, want in zip(read.shape, self.size, strict=True)
            ]
            if self.most >= 1:
                break
            inside = cut(read, *place, self.size, kind.none)
            counts = np.bincount(inside.ravel(), minlength=maps.IGNORED + 1)
            counts = counts[: maps.IGNORED]
            if (counts > 0).sum() > 1 and counts.max() < self.most * counts.sum():
                break
        return place


def check_box(name: str, image: np.ndarray, box: tuple[int, ...]) -> None:
    """Raises UserError where a box (top, bottom, left, right) isn't within an image."""
    if box[1] > image.shape[0] or box[3] > image.shape[1]:
        raise UserError(
            f"{name}: {box} lies outside of an image of {image.shape[0]} x "
            f"{image.shape[1]} px (height x width); it is (top, bottom, left, right), "
            "() for all"
        )


def cut_border(array: np.ndarray, border: tuple[int, ...]) -> np.ndarray:
    """The part within (top, bottom, left, right); UserError where that isn't inside."""
    check_box("border", array, border)
    top, bottom, left, right = border
    return array[top:bottom, left:right]


def scaled(shape: tuple[int, int], short: int, factor: float) -> tuple[int, int]:
    """Height and width after resizing, the aspect kept (mmcv's `rescale_size`).

    The short side becomes `short` times `factor`, or less where the long one would be
    more than LONGEST times that. short 0: the image's own sides times `factor`.
    """
    h, w = shape
    if short:
        wanted, longest = int(short * factor), int(LONGEST * short * factor)
        factor = min(longest / max(h, w), wanted / min(h, w))
    return max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)


def resize(image: np.ndarray, shape: tuple[int, int], interpolation: str) -> np.ndarray:
    """An image in another shape; one that has it stays as it is."""
    if image.shape[:2] == tuple(shape):
        return image
    return cv2.resize(image, shape[::-1], interpolation=KERNELS[interpolation])


def fit(read: np.ndarray, shape: tuple[int, int], kind: maps.Kind) -> np.ndarray:
    """A map in another shape; one that has it stays as it is."""
    return read if read.shape == tuple(shape) else kind.resize(read, shape)


def rotate(image, read, angle: float, kind: maps.Kind):
    """Turns a pair about its centre: the image bilinearly, the map to the nearest."""
    h, w = read.shape
    turn = cv2.getRotationMatrix2D(((w - 1) * 0.5, (h - 1) * 0.5), -angle, 1.0)
    image = cv2.warpAffine(image, turn, (w, h), flags=cv2.INTER_LINEAR)
    read = cv2.warpAffine(
        read, turn, (w, h), flags=cv2.INTER_NEAREST, borderValue=kind.none
    )
    return image, read


def cut(array, top: int, left: int, size: tuple[int, int], fill) -> np.ndarray:
    """A box of `size` from (top, left) on; `fill` below and to the right of the array."""
    inside = array[top : top + size[0], left : left + size[1]]
    if inside.shape[:2] == tuple(size):
        return inside
    out = np.empty((*size, *array.shape[2:]), array.dtype)
    out[:] = fill
    out[: inside.shape[0], : inside.shape[1]] = inside
    return out
