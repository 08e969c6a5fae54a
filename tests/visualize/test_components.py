"""Principal components, foreground, similarity and neighbours whose answers are known."""

import numpy as np
import pytest
import sklearn.decomposition

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize import components

GRID = (4, 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_components_of_a_known_basis(rng):
    """Three orthogonal directions with deviations 5, 3 and 2, and a mean."""
    codes = np.linalg.qr(rng.normal(size=(40, 4)) - 0)[0]
    codes = np.linalg.qr(np.c_[np.ones(40), codes])[0][:, 1:4]  # of mean 0
    axes = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    spread = np.array([5.0, 3.0, 2.0])
    features = (codes * spread @ axes + rng.normal(size=8)).reshape(2, 20, 8)
    scores, shares = components.pca(features)
    np.testing.assert_allclose(shares, spread**2 / (spread**2).sum(), atol=1e-9)
    signs = np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])
    wanted = (codes * spread * signs).reshape(2, 20, 3)
    np.testing.assert_allclose(scores, wanted, atol=1e-9)


def test_components_are_those_of_sklearn(rng):
    """Of the kept patches alone; all others are projected onto them."""
    features = rng.normal(size=(3, 20, 6)) * np.arange(1, 7)
    kept = rng.random((3, 20)) < 0.5
    model = sklearn.decomposition.PCA(3).fit(features[kept])
    scores, shares = components.pca(features, kept=kept)
    wanted = model.transform(features.reshape(60, 6)).reshape(3, 20, 3)
    np.testing.assert_allclose(np.abs(scores), np.abs(wanted), atol=1e-8)
    np.testing.assert_allclose(shares, model.explained_variance_ratio_, atol=1e-9)


def test_colours_have_one_basis_and_the_whole_range(rng):
    """The same patches in another order have the same colours, another image's too."""
    one = rng.normal(size=(20, 6))
    order = rng.permutation(20)
    colours, _ = components.to_rgb(np.stack([one, one[order]]))
    np.testing.assert_allclose(colours[1], colours[0][order], atol=1e-6)
    np.testing.assert_allclose(colours.min((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(colours.max((0, 1)), 1, atol=1e-6)
    kept = np.zeros((2, 20), bool)
    kept[:, :10] = True
    colours, _ = components.to_rgb(np.stack([one, one[order]]), kept)
    assert not colours[~kept].any()
    np.testing.assert_allclose(colours[kept].max(0), 1, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_what_leaves_the_margins(rng, sign):
    """Whatever side of the first component it is on."""
    inside = np.zeros(GRID, bool)
    inside[1:3, 1:4] = True
    inside = np.stack([inside.reshape(-1), np.roll(inside, 1, axis=1).reshape(-1)])
    direction = sign * np.array([0, 3.0, 4.0, 0])
    features = np.where(inside[..., None], direction, -direction)
    features = features + 0.1 * rng.normal(size=features.shape)
    np.testing.assert_array_equal(components.foreground(features, GRID), inside)


def test_similarity_is_the_cosine_to_one_patch():
    """Patches at angles of 0, 30, ... degrees, of any length."""
    angles = np.deg2rad(np.arange(0, 180, 30))
    one = np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, 7)[:, None]
    features = np.stack([one, one[::-1]])
    own = components.similarity(features, 2)
    np.testing.assert_allclose(own[0], np.cos(angles - angles[2]), atol=1e-6)
    np.testing.assert_allclose(own[1], np.cos(angles[::-1] - angles[3]), atol=1e-6)
    first = components.similarity(features, 2, image=0)
    np.testing.assert_allclose(first[1], np.cos(angles[::-1] - angles[2]), atol=1e-6)


def test_neighbours_are_the_nearest_by_angle_and_not_oneself():
    angles = np.deg2rad([0, 50, 10, 180, 3])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [9], [1], [2], [5]]
    order, cosines = components.nearest(vectors, [0, 3], 3)
    np.testing.assert_array_equal(order, [[4, 2, 1], [1, 2, 4]])
    wanted = np.cos(angles[order] - angles[[0, 3]][:, None])
    np.testing.assert_allclose(cosines, wanted, atol=1e-6)
    with pytest.raises(UserError, match="5 neighbours: 5 images have 4 others"):
        components.nearest(vectors, [0], 5)


def test_too_few_patches_have_no_components():
    with pytest.raises(UserError, match="3 principal components of 1 patches"):
        components.pca(np.ones((1, 1, 8)))
