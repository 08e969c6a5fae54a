"""I-JEPA's predictions as a map, of features whose agreement is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.ops import heatmap, patches, prediction_map

close = np.testing.assert_allclose
GRID, PATCH = (4, 4), 2


@pytest.fixture(scope="module")
def case():
    """Views and targets of two images: two blocks of three tokens, one not valid."""
    rng = np.random.default_rng(0)
    targets = {
        "features": rng.normal(size=(2, 2, 3, 5)).astype(np.float32) + 4,
        "target_valid": np.array([[[1, 1, 1], [1, 1, 0]]] * 2, bool),
    }
    views = {
        "target": np.array([[[0, 1, 2], [2, 3, 9]]] * 2),
        "target_valid": targets["target_valid"],
        "context": np.array([[[12, 13, 5]]] * 2),
        "context_valid": np.array([[[True, True, False]]] * 2),
    }
    return views, targets


def mean(targets):
    """The mean target, computed plainly."""
    return targets["features"][targets["target_valid"]].mean(0)


def test_agreement_is_that_of_what_was_added_to_the_mean(case):
    _, targets = case
    true, valid = targets["features"], targets["target_valid"]
    centre = mean(targets)
    scaled = [centre + s * (true - centre) for s in (1.0, 0.3, -2.0)]
    said = np.stack([*scaled, np.broadcast_to(centre, true.shape)])
    for values, wanted in zip(said, (1, 1, -1, 0), strict=True):
        found = prediction_map.agreement(values[:, :, None], true, valid)
        close(found[valid], wanted, atol=1e-3)
    both = np.stack([said[0], said[2]], axis=2)  # of two contexts
    close(prediction_map.agreement(both, true, valid)[valid], 0, atol=1e-5)


def test_the_map_is_light_where_a_target_was_predicted_and_dark_elsewhere(case):
    views, targets = case
    image = np.random.default_rng(1).random((2, 8, 8, 3), np.float32)
    said = targets["features"].copy()
    said[:, 0, 1] = 2 * mean(targets) - said[:, 0, 1]  # token 1: the opposite
    said[:, 1, 0] = 2 * mean(targets) - said[:, 1, 0]  # token 2, in the second block
    numbers = dict(grid=GRID, patch=PATCH)
    rows = prediction_map.show(
        image, jnp.asarray(said)[:, :, None], targets, views, **numbers
    )
    assert list(rows) == ["context", "targets", prediction_map.MAP]
    cells = {k: np.asarray(patches.patchify(v, PATCH)) for k, v in rows.items()}
    plain = np.asarray(patches.patchify(image, PATCH))
    for name, inside in (("context", [12, 13]), ("targets", [0, 1, 2, 3])):
        light = np.full((16, 1), 0.2)
        light[inside] = 1
        close(cells[name], light * plain, atol=1e-6)
    found = cells[prediction_map.MAP].reshape(2, 16, -1, 3)
    dark, light = heatmap.SCALE[0], heatmap.SCALE[-1]
    for token, colour in ((0, light), (1, dark), (2, dark), (3, light)):
        close(found[:, token], np.broadcast_to(colour, found[:, 0].shape), atol=1e-4)
    close(found[:, 4:].reshape(2, 12, -1), 0.2 * plain[:, 4:], atol=1e-6)
