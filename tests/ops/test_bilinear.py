"""Bilinear resizing: torch's, both up and down."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vit_ssl_jax.ops import bilinear


def by_torch(x, size):
    """`F.interpolate(align_corners=False)` of `[B h w C]`."""
    moved = torch.tensor(x).permute(0, 3, 1, 2)
    out = functional.interpolate(moved, size, mode="bilinear", align_corners=False)
    return out.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [(12, 20), (9, 7), (3, 2), (4, 5), (1, 64)])
def test_it_is_torchs(size):
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    found = bilinear.resize(x, size)
    np.testing.assert_allclose(found, by_torch(x, size), atol=2e-6)


def test_weights_of_a_pixel_add_up_and_cannot_be_changed():
    weights = bilinear.matrix(37, 5)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        weights[0] = 0
