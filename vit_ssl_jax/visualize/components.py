"""Features of patches as colours, and the patches and images that are alike.

Pure functions of arrays: B images, N patches, D features.
"""

import numpy as np

from vit_ssl_jax.errors import UserError


def pca(
    features: np.ndarray, count: int = 3, kept: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of patches in one basis for all images: `[B N D] -> [B N count]`.

    kept: the patches that make the basis, bool `[B N]`; None: all. Also returns the
    share of their variance that each component has, `[count]`. A component's sign is
    free; here the feature that weighs most in it is positive. Raises UserError for fewer
    than two patches, or features than components.
    """
    rows = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
    basis = rows if kept is None else rows[kept.reshape(-1)]
    if len(basis) < 2 or basis.shape[1] < count:
        raise UserError(
            f"{count} principal components of {len(basis)} patches with {basis.shape[1]} "
            f"features: there must be at least 2 and {count}"
        )
    mean = basis.mean(axis=0)
    centred = basis - mean
    spread, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    spread, axes = np.maximum(spread[::-1], 0), axes.T[::-1][:count]
    heaviest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), heaviest])[:, None]
    scores = (rows - mean) @ axes.T
    shares = spread[:count] / max(spread.sum(), np.finfo(float).tiny)
    return scores.reshape(*features.shape[:2], count), shares


def foreground(features: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Patches in front of a background: `[B N D]`, (rows, columns) `-> bool [B N]`.

    Those on one side of 0 of the first principal component of all images, as DINOv2 does
    (Oquab et al., 2023, figure 9). Its sign is free: here it is the side that has more of
    the images' middles than of their margins, the outermost patches.
    """
    first = pca(features, 1)[0][..., 0]
    margin = np.ones(grid, bool)
    margin[1:-1, 1:-1] = False
    margin, side = margin.reshape(-1), first > 0
    if margin.all():
        return side
    inside = side[:, ~margin].mean() >= side[:, margin].mean()
    return side if inside else ~side


def to_rgb(
    features: np.ndarray, kept: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The first three principal components as red, green, blue: `[B N D] -> [B N 3]`.

    In [0, 1], from a component's least to its greatest value over all images, so that a
    colour means the same in each. kept: as in `pca`; all others are black. Also returns
    the components' shares of the variance, `[3]`.
    """
    scores, shares = pca(features, 3, kept)
    seen = scores.reshape(-1, 3) if kept is None else scores[kept]
    low, high = seen.min(axis=0), seen.max(axis=0)
    colours = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    colours = colours if kept is None else np.where(kept[..., None], colours, 0)
    return colours.astype(np.float32), shares


def similarity(features: np.ndarray, patch: int, image: int | None = None):
    """Cosine similarity of all patches to a chosen one: `[B N D] -> float32 [B N]`.

    patch: 0 to N - 1, in rows. image: the one that it is of; None: every image's own.
    """
    unit = normalize(features)
    chosen = unit[:, patch] if image is None else unit[[image] * len(unit), patch]
    return np.einsum("bnd,bd->bn", unit, chosen)


def nearest(vectors: np.ndarray, queries: list[int], count: int):
    """The nearest other images by cosine: `[n D] -> (numbers [q count], cosines)`.

    queries: numbers of the images whose neighbours are wanted. Raises UserError where
    there are fewer others.
    """
    if not 1 <= count < len(vectors):
        raise UserError(
            f"{count} neighbours: {len(vectors)} images have {len(vectors) - 1} others"
        )
    unit = normalize(vectors)
    cosines = unit[queries] @ unit.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, axis=1)


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1: `[... D] -> float32 [... D]`; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, 1e-12)
