"""sRGB and CIE Lab, and bins of its ab plane (Zhang et al., 2016, section 2).

Lab is that of D65 and the 2 degree observer, with scikit-image's constants. Colours end
in an axis of three; ab, the chroma, in one of two.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_XYZ = np.array(  # of linear sRGB
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
SPACING = 10.0  # of the bins, Lab units


def rgb_to_lab(rgb, xp=jnp):
    """Converts sRGB in [0, 1] to L in [0, 100], a and b in about [-110, 100].

    Both are `[... 3]`; `xp` is the library that computes: jax.numpy or numpy.
    """
    rgb = xp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = (_mix(row, rgb) for row in _XYZ / _WHITE[:, None])
    x, y, z = (
        xp.where(t > 0.008856, xp.cbrt(t), 7.787 * t + 16.0 / 116.0) for t in xyz
    )
    return xp.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def lab_to_rgb(lab):
    """Inverse of `rgb_to_lab`, clipped to [0, 1] where Lab isn't an sRGB colour."""
    y = (lab[..., 0] + 16.0) / 116.0
    f = jnp.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], -1)
    xyz = jnp.where(f > 0.2068966, f**3, (f - 16.0 / 116.0) / 7.787)
    rgb = jnp.stack([_mix(row, xyz) for row in np.linalg.inv(_XYZ) * _WHITE], -1)
    rgb = jnp.clip(rgb, 0.0, 1.0)
    return jnp.where(rgb > 0.0031308, 1.055 * rgb ** (1.0 / 2.4) - 0.055, 12.92 * rgb)


def _mix(weights, channels):
    """Weighted sum of channels, by hand: a matmul may be in bfloat16."""
    return sum(w * channels[..., i] for i, w in enumerate(weights.tolist()))


@functools.cache
def bins():
    """Centres `[Q 2]` of the Q = 261 bins, in lexicographic order (numpy float32).

    A bin is a multiple of 10 in a and b to which the ab of some sRGB colour is rounded.
    Every third level of a channel is enough to find them all. (The paper's 313 are a
    file that no such rule gives.)
    """
    levels = np.arange(0, 256, 3) / 255.0
    rgb = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    rounded = np.round(rgb_to_lab(rgb, np)[:, 1:] / SPACING).astype(np.int64)
    rounded -= (low := rounded.min(0))
    a, b = np.unravel_index(
        np.unique(np.ravel_multi_index(rounded.T, shape := rounded.max(0) + 1)), shape
    )
    return np.float32(SPACING * (np.stack([a, b], -1) + low))


@functools.cache
def _candidates(count):
    """Which bins can be among the `count` nearest of a point, by where it lies.

    The plane is cut into squares of half a bin's side: `low [2]`, the corner of the
    first, and `ids [R S C]`, ascending (numpy). C is 19 for 10 neighbours, so nobody
    sorts 261 distances for every point.
    """
    side = SPACING / 2
    low, high = bins().min(0) - side, bins().max(0) + side
    rows, cols = (np.arange(a, b, side) + side / 2 for a, b in zip(low, high))
    middle = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1)
    apart = np.abs(middle[:, :, None] - bins()[None, None])  # [R S Q 2]
    half = side / 2 + 0.01  # and a little, for points that rounding moves across
    closest = np.linalg.norm(np.maximum(apart - half, 0.0), axis=-1)
    reach = np.sort(np.linalg.norm(apart + half, axis=-1))[..., count - 1, None]
    possible = closest <= reach
    ids = np.argsort(~possible, axis=-1, kind="stable")
    return low, ids[..., : possible.sum(-1).max()].astype(np.int32)


def nearest_bins(ab, count):
    """The `count` nearest bins of a chroma, nearest first: `[... 2] -> ids, d2`.

    Ids int32 and squared distances, `[... count]`. Of two bins as far away the one of
    lower id is first. Exact wherever a mean of colours can lie, the box of all bins.
    """
    low, ids = _candidates(count)
    square = jnp.floor((ab - _wide(low, ab)) / (SPACING / 2)).astype(jnp.int32)
    last = np.array(ids.shape[:2]) - 1
    square = jnp.clip(square, 0, _wide(last, ab))
    ids = jnp.asarray(ids)[square[..., 0], square[..., 1]]  # [... C]
    d2 = jnp.square(ab[..., None, :] - jnp.asarray(bins())[ids]).sum(-1)
    # A stable sort, for the partitioner gathers the whole batch for a top_k.
    d2, ids = jax.lax.sort((d2, ids), num_keys=1, is_stable=True)
    return ids[..., :count], d2[..., :count]


def _wide(vector, like):
    """A numpy vector with as many axes as `like`."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,))


def soft_encode(ab, neighbours, sigma):
    """Shares of a chroma on its nearest bins: `[... 2] -> ids, weights [... K]`.

    A Gaussian of the distance, of `sigma` Lab units, that sums to one over the K
    neighbours (section 2.1). Nearest first.
    """
    ids, d2 = nearest_bins(ab, neighbours)
    return ids, jax.nn.softmax(-d2 / (2.0 * sigma**2))


def annealed_mean(logits, centres, temperature):
    """Expected chroma after softmax(logits / T): `[... Q], [Q 2] -> [... 2]`.

    T = 1 is the mean, desaturated; T -> 0 the mode, patchy (section 2.3).
    """
    shares = jax.nn.softmax(logits / temperature)
    sums = [(shares * _wide(centres[:, i], shares)).sum(-1) for i in range(2)]
    return jnp.stack(sums, -1)


def smooth(prior, sigma):
    """Shares of the bins after a Gaussian of `sigma` Lab units: `[Q] -> [Q]`.

    What one bin gives away sums to its share, also at the edge of the gamut.
    """
    d2 = np.square(bins()[:, None] - bins()[None]).sum(-1)
    kernel = np.exp(-d2 / (2.0 * sigma**2))
    kernel = np.float32(kernel / kernel.sum(1, keepdims=True))
    return jnp.matmul(prior, kernel, precision="highest")


def rebalance(prior, smoothed, uniform):
    """Weights that make rare colours count: `[Q], [Q] -> [Q]`.

    `w ~ 1 / ((1 - uniform) smoothed + uniform / Q)`, with `uniform` the paper's lambda
    (section 2.2); 1.0 weighs all alike. Their mean is 1 under the prior as counted, so
    the size of the loss stays what it is without weights.
    """
    weights = 1.0 / ((1.0 - uniform) * smoothed + uniform / len(prior))
    return weights / (prior * weights).sum()
