"""Texture patches cut from thirteen photographs that ship inside scikit-image.

They are there without a network or a download, so a first run has real pixels to
learn from. The class is which photograph a patch comes from: this is telling textures
apart, not recognising objects, and its numbers say nothing about ImageNet's.
"""

import pathlib

import numpy as np
from PIL import Image

PHOTOS = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
    "rocket",
)
PER_CLASS = {"train": 500, "test": 100}
TRAIN_COLUMNS = 0.6  # of the width, from the left; tests come from the rest
SIZE = 32


def make_patches(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Cuts "train" or "test": uint8 `[n 32 32 3]` and labels int32 `[n]`, shuffled.

    The same patches every time, and no pixel is in both splits.
    """
    import skimage.data  # here because only this source needs it

    rng = np.random.default_rng((0, split == "test"))
    patches = []
    for name in PHOTOS:
        photo = _colour(getattr(skimage.data, name)())
        border = int(photo.shape[1] * TRAIN_COLUMNS)
        part = photo[:, :border] if split == "train" else photo[:, border:]
        patches.append(_draw(rng, part, PER_CLASS[split]))
    images = np.concatenate(patches)
    labels = np.repeat(np.arange(len(PHOTOS), dtype=np.int32), PER_CLASS[split])
    order = rng.permutation(len(images))
    return images[order], labels[order]


def write_folder(top: str, *, size: int = 64, per_class: int = 40) -> str:
    """Writes larger patches as a folder of images, `top/CLASS/*.png`; returns `top`.

    A stand-in for own images, with classes: cut from the whole photographs.
    """
    import skimage.data

    rng = np.random.default_rng(0)
    for name in PHOTOS:
        folder = pathlib.Path(top) / name
        folder.mkdir(parents=True, exist_ok=True)
        patches = _draw(rng, _colour(getattr(skimage.data, name)()), per_class, size)
        for i, patch in enumerate(patches):
            Image.fromarray(patch).save(folder / f"{i:03}.png")
    return top


def _colour(photo: np.ndarray) -> np.ndarray:
    """Grey repeated: `[h w]` or `[h w 3] -> [h w 3]`."""
    return np.repeat(photo[..., None], 3, axis=-1) if photo.ndim == 2 else photo


def _draw(
    rng: np.random.Generator, photo: np.ndarray, count: int, size: int = SIZE
) -> np.ndarray:
    """Cuts `count` patches at uniform places: `[h w 3] -> [count size size 3]`."""
    tops = rng.integers(0, photo.shape[0] - size + 1, count)
    lefts = rng.integers(0, photo.shape[1] - size + 1, count)
    corners = zip(tops, lefts, strict=True)
    return np.stack([photo[y : y + size, x : x + size] for y, x in corners])
