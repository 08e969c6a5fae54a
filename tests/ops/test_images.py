"""Pixels: bytes to floats, standardising and back."""

import cv2
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax.ops import images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_bytes_become_floats_from_0_to_1():
    out = images.to_float(jnp.array([0, 51, 255], jnp.uint8))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, [0.0, 0.2, 1.0], rtol=1e-6)


def test_normalize_standardises_every_channel():
    image = np.random.default_rng(0).random((2, 4, 5, 3))
    expected = (image - np.array(MEAN)) / np.array(STD)
    out = images.normalize(jnp.float32(image), MEAN, STD)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(  # any number of axes in front
        images.normalize(jnp.float32(image[0, 0]), MEAN, STD), expected[0, 0], atol=1e-6
    )


def test_denormalize_is_the_inverse():
    image = np.random.default_rng(1).random((2, 4, 5, 3), np.float32)
    back = images.denormalize(images.normalize(image, MEAN, STD), MEAN, STD)
    np.testing.assert_allclose(back, image, atol=1e-6)


def test_denormalize_clips_to_what_can_be_shown():
    out = images.denormalize(jnp.array([[-9.0, 0.0, 9.0]]), MEAN, STD)
    np.testing.assert_allclose(out, [[0.0, MEAN[1], 1.0]], rtol=1e-6)


def test_a_box_is_cut_and_resized():
    """Twice as large, half-pixel centres: quarters between neighbours, held at edges."""
    row = np.float32([9, 0, 4, 8, 9])
    image = np.broadcast_to(row[None, None, :, None], (1, 5, 5, 1))
    out = images.crop_resize(image, *np.float32([[1], [1], [3], [3]]), (6, 6))
    expected = [0, 1, 3, 5, 7, 8]
    np.testing.assert_allclose(out[0, :, :, 0], [expected] * 6, atol=1e-6)


def test_a_box_of_its_own_size_is_only_cut():
    image = np.random.default_rng(0).random((2, 8, 9, 3), np.float32)
    top, left = np.array([0, 3]), np.array([5, 1])
    size = np.full(2, 4)
    out = images.crop_resize(image, top, left, size, size, (4, 4))
    for x, y, t, n in zip(out, image, top, left):
        np.testing.assert_allclose(x, y[t : t + 4, n : n + 4], atol=1e-6)


def test_resizing_is_opencvs():
    """Its INTER_LINEAR has the same centres and the same edges."""
    image = np.random.default_rng(1).random((1, 10, 12, 3), np.float32)
    box = [np.array([x]) for x in (2, 3, 5, 7)]
    out = images.crop_resize(image, *box, (11, 13))
    theirs = cv2.resize(image[0, 2:7, 3:10], (13, 11), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(out[0], theirs, atol=1e-5)
