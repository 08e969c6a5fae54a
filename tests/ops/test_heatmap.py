"""Numbers as colours: where each one lands."""

import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import heatmap

close = np.testing.assert_allclose


def test_colours_go_from_dark_to_light_through_those_of_the_scale():
    found = np.asarray(heatmap.colours(jnp.linspace(0, 1, 5)))
    close(found, heatmap.SCALE, atol=1e-6)
    fine = np.asarray(heatmap.colours(jnp.linspace(0, 1, 101)))
    light = fine @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()
    close(heatmap.colours(jnp.float32([-3, 7])), heatmap.SCALE[[0, -1]], atol=1e-6)


def test_a_patch_has_one_colour_and_its_place():
    values = jnp.float32([[0, 0.25, 0.5, 0.75, 1, 0]])
    found = heatmap.of_patches(values, (2, 3), 4)
    assert found.shape == (1, 8, 12, 3)
    for i, value in enumerate(values[0]):
        row, col = divmod(i, 3)
        cell = found[0, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
        close(cell, np.broadcast_to(heatmap.colours(value), (4, 4, 3)), atol=1e-6)


def test_patches_that_are_not_shown_are_the_image_in_the_dark():
    image = np.random.default_rng(0).random((1, 4, 4, 3), np.float32)
    shown = jnp.array([[True, False, False, True]])
    found = heatmap.over(image, jnp.ones((1, 4)), shown, (2, 2), 2)
    close(found[0, :2, :2], np.broadcast_to(heatmap.SCALE[-1], (2, 2, 3)), atol=1e-6)
    close(found[0, :2, 2:], 0.2 * image[0, :2, 2:], atol=1e-6)


def test_cells_of_a_table_fill_the_picture():
    values = jnp.eye(3)[None]
    found = np.asarray(heatmap.table(values, (32, 30)))[0]
    assert found.shape == (32, 30, 3)
    yellow = np.abs(found - heatmap.SCALE[-1]).max(-1) < 1e-5
    assert yellow[:11, :10].all() and yellow[-10:, -10:].all()
    assert not yellow[:10, 10:].any() and not yellow[-10:, :20].any()


def test_stretching_is_by_image():
    found = heatmap.stretch(jnp.float32([[1, 2, 3], [5, 5, 5]]))
    close(found, [[0, 0.5, 1], [0, 0, 0]])
