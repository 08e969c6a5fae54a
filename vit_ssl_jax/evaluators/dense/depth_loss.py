"""Losses and errors of depths in meters; pixels without one (0) count for nothing.

Losses are those of DINOv2's released depth code (which has them from AdaBins, Bhat et
al., 2021, and MegaDepth, Li and Snavely, 2018).
"""

import jax.numpy as jnp
import numpy as np

EPS = 1e-3  # metres, added before a logarithm
MEAN = 0.15  # weight of the squared mean
SCALES = (1, 2, 4, 6)  # every so many-th pixel, of the gradient loss


def scale_invariant(said, depth, warm):
    """Root of the variance of the log ratio and 0.15 of its squared mean: `[B H W]` x 2.

    Over all pixels of the batch that have a depth (released: those of a GPU's two
    images). While `warm` (bool) without the variance.
    """
    known = depth > 0
    count = jnp.maximum(known.sum(), 2)
    ratio = jnp.where(known, jnp.log(said + EPS) - jnp.log(depth + EPS), 0.0)
    mean = ratio.sum() / count
    variance = jnp.where(known, (ratio - mean) ** 2, 0.0).sum() / (count - 1)
    square = jnp.where(warm, 0.0, variance) + MEAN * mean**2
    return jnp.sqrt(jnp.maximum(square, 1e-12))


def gradient(said, depth):
    """Mean absolute difference of the log ratio two pixels on, both ways: `[B H W]` x 2.

    Summed over SCALES. (The released code takes differences along the axes of images and
    channels of `[B 1 H W]`, by which it is 0 for two images a GPU: a slip. Weight 0 is
    what that code does.)
    """
    total = 0.0
    for scale in SCALES:
        a, b = said[:, ::scale, ::scale], depth[:, ::scale, ::scale]
        known = b > 0
        ratio = jnp.where(known, jnp.log(a + EPS) - jnp.log(b + EPS), 0.0)
        down = jnp.abs(ratio[:, 2:] - ratio[:, :-2]) * (known[:, 2:] & known[:, :-2])
        along = jnp.abs(ratio[:, :, 2:] - ratio[:, :, :-2])
        along = along * (known[:, :, 2:] & known[:, :, :-2])
        total += (down.sum() + along.sum()) / jnp.maximum(known.sum(), 1)
    return total


def errors(said, depth, least, most, crop):
    """Errors of one image, numpy `[h w]` x 2: `{rmse, abs_rel, delta1}`; None for none.

    Over pixels whose depth is between `least` and `most` metres and that lie in `crop`,
    (top, bottom, left, right), () for all. delta1: part of the pixels within 1.25 times.
    """
    known = (depth > least) & (depth < most)
    if crop:
        inside = np.zeros(depth.shape, bool)
        inside[crop[0] : crop[1], crop[2] : crop[3]] = True
        known &= inside
    if not known.any():
        return None
    said, depth = np.float64(said[known]), np.float64(depth[known])
    worse = np.maximum(said / depth, depth / said)
    return {
        # root of an image's mean squared error, meters; mean over images
        "rmse": np.sqrt(np.mean((said - depth) ** 2)),
        # mean absolute error as a share of the depth
        "abs_rel": np.mean(np.abs(said - depth) / depth),
        "delta1": np.mean(worse < 1.25),  # share of pixels within a factor of 1.25
    }
