"""Augments a training image on the host: crop, flip, RandAugment, in this order."""

import functools

import numpy as np

from vit_ssl_jax.data import crops
from vit_ssl_jax.data.randaugment import Augment, make_randaugment
from vit_ssl_jax.errors import UserError


def make_augmentation(
    *,
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: bool,
    interpolation: str,
    resize: int,
    pad: int = 0,
    train_resize: int = 0,
    squash: bool = False,
    single_draw: bool = False,
    randaugment: str = "",
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    pixels: str = "pillow",
) -> Augment:
    """Makes the function (rng, uint8 `[h w 3]`) -> uint8 `[H W 3]`, `(H, W) = size`.

    crop: the range of the random crop's area as part of the image's; None or (): as in
        evaluation the centre of the image resized to `resize`.
    ratio: the range of the random crop's width / height.
    single_draw: the random crop is MAE's for linear probes, `crops.draw_clamped_box`.
    pad: without `crop`, the centre is moved by up to so many pixels.
    train_resize: without `crop`, not the centre but a random window is cut, of the
        image resized to so many pixels instead of `resize`; 0 for the centre.
    squash: without `crop`, resizing ignores the aspect, see `crops.resize_to_cover`.
    randaugment, mean, pixels: see `randaugment.make_randaugment`, `resizing.WAYS`.

    Raises UserError for values that exclude each other.
    """
    _check(size, crop, pad, train_resize)
    how = dict(size=size, interpolation=interpolation, way=pixels)
    if crop:
        how |= dict(scale=crop, ratio=ratio, single_draw=single_draw)
        place = functools.partial(crops.random_resized_crop, **how)
    elif train_resize:
        how |= dict(resize=train_resize, squash=squash)
        place = functools.partial(_resize_and_cut, **how)
    else:
        how |= dict(resize=resize, squash=squash, pad=pad)
        place = functools.partial(_center_and_move, **how)
    distort = make_randaugment(randaugment, mean)

    def augment(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        image = place(rng, image)
        if flip:
            image = crops.random_flip(rng, image)
        return distort(rng, image)

    return augment


def train_size(data) -> tuple[int, int]:
    """(height, width) of the images that training gets, by `config.data`.

    Those of `size`, or of `train_size` where a method cuts crops of that size from them.
    """
    return tuple(data.get("train_size", ()) or data.size)


def _resize_and_cut(
    rng: np.random.Generator, image: np.ndarray, *, size: tuple[int, int], **how
) -> np.ndarray:
    """Does big_vision's resmall_crop or, if squashed, resize and random crop (VTAB)."""
    image = crops.resize_to_cover(image, size=size, **how)
    return crops.random_window(rng, image, size=size)


def _center_and_move(
    rng: np.random.Generator, image: np.ndarray, *, pad: int, **how
) -> np.ndarray:
    image = crops.resize_and_center_crop(image, **how)
    return crops.pad_and_crop(rng, image, pad=pad)


def _check(
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    pad: int,
    train_resize: int,
) -> None:
    """Raises UserError for two ways to crop at once, and for too small a resize."""
    if crop and pad:
        raise UserError(
            f"config.data.pad: {pad} pixels around the image are for a crop of its size, "
            f"not for one of config.data.crop={tuple(crop)}; set pad=0 or crop=()"
        )
    if crop and train_resize:
        raise UserError(
            f"config.data.train_resize: {train_resize} pixels are for a window of the "
            f"image, not for config.data.crop={tuple(crop)}; set train_resize=0 or "
            "crop=()"
        )
    if pad and train_resize:
        raise UserError(
            f"config.data.train_resize: {train_resize} already moves the window, so "
            f"config.data.pad={pad} has no place; set one of them to 0"
        )
    if 0 < train_resize < max(size):
        raise UserError(
            f"config.data.train_resize: {train_resize} pixels are less than "
            f"config.data.size={tuple(size)}, the window to be cut of it; set at least "
            f"{max(size)}, or 0 to train on the centre"
        )
