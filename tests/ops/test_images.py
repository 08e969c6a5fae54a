"""Pixels: bytes to floats, standardising and back."""

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
