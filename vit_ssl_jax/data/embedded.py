"""Texture patches cut from thirteen photographs that ship inside scikit-image.

They are there without a network or a download, so a first run has real pixels to
learn from. The class is which photograph a patch comes from: this is telling textures
apart, not recognising objects, and its numbers say nothing about ImageNet's.
"""

import numpy as np

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
        photo = getattr(skimage.data, name)()
        if photo.ndim == 2:
            photo = np.repeat(photo[..., None], 3, axis=-1)
        border = int(photo.shape[1] * TRAIN_COLUMNS)
        part = photo[:, :border] if split == "train" else photo[:, border:]
        patches.append(_draw(rng, part, PER_CLASS[split]))
    images = np.concatenate(patches)
    labels = np.repeat(np.arange(len(PHOTOS), dtype=np.int32), PER_CLASS[split])
    order = rng.permutation(len(images))
    return images[order], labels[order]


def _draw(rng: np.random.Generator, photo: np.ndarray, count: int) -> np.ndarray:
    """Cuts `count` patches at uniform places: `[h w 3] -> [count 32 32 3]`."""
    tops = rng.integers(0, photo.shape[0] - SIZE + 1, count)
    lefts = rng.integers(0, photo.shape[1] - SIZE + 1, count)
    corners = zip(tops, lefts, strict=True)
    return np.stack([photo[y : y + SIZE, x : x + SIZE] for y, x in corners])
