"""Alignment and uniformity of features on the sphere (Wang & Isola, 2020).

Two views of an image should lie close together, and images spread out: what a
contrastive loss asks for, told of any encoder without a label.
"""

import dataclasses

import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.checks import MIN_ONE, POSITIVE
from vit_ssl_jax.evaluators import Unfit, Wants, banks, features

BLOCK = 1024  # features at a time: bounds the squared distances


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: images, their augmentation, and the two exponents."""

    split: str  # all of it is read, twice; of a large one name a part, "train[:1%]"
    pool: str  # "cls" or "mean" of the last layer
    images: int  # that count, at most: uniformity takes all pairs of them
    batch_size: int  # images that go through the encoder together
    crop: tuple  # (smallest, largest) share of the image
    ratio: tuple  # (smallest, largest) width / height
    flip: bool  # half of the images
    alpha: float  # exponent of the distance between views; the paper's is 2
    t: float  # of the Gaussian potential; the paper's is 2
    seed: int  # of the augmentations


RANGES = {
    "pool": banks.POOLS,
    "images": MIN_ONE,
    "batch_size": MIN_ONE,
    "alpha": POSITIVE,
    "t": POSITIVE,
}


def wants(c):
    """Augmented images, labelled or not."""
    del c
    return Wants(augmented=("split",), labels=False)


def check(c, run, open_split):
    """Raises UserError for a batch or a class token that can't be."""
    banks.check_pool(c, run)
    images = min(len(open_split("split")), c.images)
    if c.batch_size > images:
        raise Unfit(
            f"batch_size: {c.batch_size} images, and there are {images} (at most "
            "`images` of the split); give that number or less"
        )
    partition.check_batch("batch_size", c.batch_size, run.mesh)


def make(c, run):
    """Makes `evaluate(state, inputs) -> {metric: float}`.

    Metrics are `mean/alignment` and `mean/uniformity`, or `cls/...`, by the pooling.
    """
    extract = features.make_extractor(run.encoder, run.mesh, run.normalize)
    readout = (1, c.pool)
    cut = dict(batch_size=c.batch_size, crop=tuple(c.crop), ratio=tuple(c.ratio))
    cut |= dict(flip=c.flip, seed=c.seed)

    def evaluate(state, inputs):
        params = run.encoder_params(state)
        count = len(inputs.source("split"))
        steps = -(-2 * count // c.batch_size)  # every image at least twice
        batches = inputs.augmented("split", 0, **cut)

        def numbered():
            for _, batch in zip(range(steps), batches):
                valid = np.ones(len(batch["id"]), bool)
                yield batch | {"label": batch["id"], "valid": valid}

        extracted, ids = extract(params, numbered(), (readout,))
        first, second = pair(ids, c.images)
        x = extracted[readout]
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return {
            # mean distance of two views of an image, to the power `alpha`; 0 at best
            f"{c.pool}/alignment": alignment(x[first], x[second], c.alpha),
            # log of the mean Gaussian potential of two images; the lower the more even
            f"{c.pool}/uniformity": uniformity(x[first], c.t),
        }

    return evaluate


def pair(ids, most):
    """Rows of the first two views of each image that has two: `[n], [n]`, n <= `most`."""
    views = {}
    for row, image in enumerate(ids.tolist()):
        views.setdefault(image, []).append(row)
    both = [rows[:2] for rows in views.values() if len(rows) > 1][:most]
    return tuple(np.array(both, int).reshape(-1, 2).T)


def alignment(x, y, alpha):
    """Mean of `|x - y|^alpha` over pairs of unit features `[n F], [n F]`: float."""
    return float((np.linalg.norm(x - y, axis=1) ** alpha).mean())


def uniformity(x, t):
    """Log of the mean of `exp(-t |x - y|^2)` over pairs of different rows `[n F]`: float."""
    total = 0.0
    for start in range(0, len(x), BLOCK):
        cosines = np.float64(x[start : start + BLOCK] @ x.T)
        potentials = np.exp(t * np.minimum(2.0 * cosines - 2.0, 0.0))
        rows = np.arange(len(cosines))
        potentials[rows, start + rows] = 0.0  # a row with itself
        total += potentials.sum()
    return float(np.log(total / (len(x) * (len(x) - 1))))
