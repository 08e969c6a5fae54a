"""What is seen in an encoder's parameters alone: positions and patch filters."""

import numpy as np

from vit_ssl_jax.encoder import Encoder
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize import components


def position_similarity(encoder: Encoder) -> np.ndarray:
    """Cosine similarity of every patch's position to all others: float32 `[N N]`.

    Of the table that is added to the patches, learned or fixed (ViT: Dosovitskiy et al.,
    2021, figure 7). Raises UserError where there is none.
    """
    module = encoder.module
    if module.posemb == "none":
        kind = "rotates queries and keys instead" if module.rope else "has no positions"
        raise UserError(f"this ViT adds no position table, it {kind}")
    table = module.apply({"params": encoder.params}, method="positions")[0]
    unit = components.normalize(table)
    return unit @ unit.T


def filters(encoder: Encoder) -> np.ndarray:
    """Filters of the patch embedding, a picture a channel: float32 `[D P P 3]`.

    They are of pixels as the ViT takes them, normalised.
    """
    kernel = np.asarray(encoder.params["patch"]["kernel"], np.float32)
    patch = encoder.module.patch
    return kernel.T.reshape(-1, patch, patch, 3)


def principal_filters(encoder: Encoder, count: int = 28) -> np.ndarray:
    """The main directions of all patch filters: `[count P P 3]`, or as many as there are.

    Principal components of the filters as rows, the one with most variance first; ViT's
    figure 7 shows 28.
    """
    rows = filters(encoder)
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    _, _, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    return axes[:count].reshape(-1, *rows.shape[1:]).astype(np.float32)
