"""Patches: published order, round trip, gathering."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import patches


def test_order_is_that_of_the_published_code():
    # The image counts in torch's layout [C H W], so an id tells where a pixel was.
    image = np.arange(3 * 224 * 224).reshape(1, 3, 224, 224).transpose(0, 2, 3, 1)
    tokens = np.asarray(patches.patchify(image, 16))[0]
    assert tokens.shape == (196, 768)
    assert tokens[0, :6].tolist() == [0, 50176, 100352, 1, 50177, 100353]
    assert tokens[0, 48:51].tolist() == [224, 50400, 100576]
    assert tokens[1, :3].tolist() == [16, 50192, 100368]
    assert tokens[14, :3].tolist() == [3584, 53760, 103936]


side = st.integers(1, 4)


@settings(max_examples=25, deadline=None)
@given(side, side, side, side)
def test_unpatchify_is_the_inverse(rows, cols, patch, channels):
    shape = (2, rows * patch, cols * patch, channels)
    image = np.random.default_rng(0).random(shape, np.float32)
    tokens = patches.patchify(image, patch)
    assert tokens.shape == (2, rows * cols, patch * patch * channels)
    back = patches.unpatchify(tokens, patch, (rows, cols))
    np.testing.assert_array_equal(back, image)


def test_a_token_is_the_crop_at_its_place():
    image = np.random.default_rng(1).random((1, 6, 8, 3), np.float32)
    tokens = patches.patchify(image, 2)
    crop = image[0, 4:6, 2:4]  # row 2, column 1 of a 3x4 grid
    np.testing.assert_array_equal(tokens[0, 2 * 4 + 1], crop.ravel())


def test_take_gathers_per_image():
    tokens = np.random.default_rng(2).random((2, 5, 3), np.float32)
    ids = np.array([[4, 0, 0], [1, 2, 3]])
    expected = np.stack([tokens[b][ids[b]] for b in range(2)])
    np.testing.assert_array_equal(patches.take(tokens, ids), expected)
