"""Erasing, mixup and CutMix against hand-worked boxes and the laws they are drawn from."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import mixing

MIX = dict(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5)


@functools.partial(jax.jit, static_argnames=tuple(MIX))
def mix(key, image, **settings):
    """`mixing.mix` with the recipe's settings but for those given."""
    return mixing.mix(key, image, **(MIX | settings))


def constants(count, size=(8, 8)):
    """Images of one colour each, their own number: `[B H W 3]`."""
    shape = (count, *size, 3)
    return jnp.broadcast_to(jnp.arange(count, dtype=float)[:, None, None, None], shape)


@pytest.mark.parametrize(
    ("share", "row", "column", "expected"),
    [
        (0.75, 8, 10, (4, 5, 12, 15)),  # sides 16 / 2 and 20 / 2, in the middle
        (0.75, 1, 19, (0, 14, 5, 20)),  # clipped at the top and at the right
        (0.0, 0, 0, (0, 0, 8, 10)),  # the whole image's box about its corner
        (1.0, 5, 5, (5, 5, 5, 5)),  # nothing
        (0.8, 8, 10, (5, 6, 11, 14)),  # int(7.15) // 2 = 3, int(8.94) // 2 = 4
    ],
)
def test_a_box_by_hand(share, row, column, expected):
    box = mixing.cut_box(jnp.float32(share), row, column, (16, 20))
    assert tuple(int(x) for x in box) == expected


@pytest.mark.parametrize(
    ("area", "aspect", "expected"),
    [
        ((1 - 0.02) / (1 / 3 - 0.02), 0.5, None),  # all of the image: never smaller
        (0.0, 0.5, (14, 14)),  # sqrt(0.02 * 100 * 100) = 14.14
        (
            0.0,
            0.0,
            (8, 26),
        ),  # aspect 0.3: sqrt(200 * 0.3) = 7.7, sqrt(200 / 0.3) = 25.8
        (0.0, 1.0, (26, 8)),  # its inverse
        (1.0, 0.0, None),  # 32 x 105
    ],
)
def test_a_rectangle_by_hand(area, aspect, expected):
    numbers = (jnp.full((1, 3), x) for x in (area, aspect))
    height, width, fits = mixing.first_rectangle(*numbers, (100, 100))
    assert bool(fits[0]) == (expected is not None)
    assert (int(height[0]), int(width[0])) == (expected or (0, 0))


def test_the_first_attempt_that_fits_is_taken():
    areas = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    aspects = jnp.array([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    height, width, _ = mixing.first_rectangle(areas, aspects, (100, 100))
    np.testing.assert_array_equal(height, [14, 26])
    np.testing.assert_array_equal(width, [14, 8])


@pytest.fixture(scope="module")
def erased():
    """2,000 images of zeros of 40 x 30 px, erased with a probability of 0.25."""
    image = jnp.zeros((2000, 40, 30, 3))
    erase = jax.jit(functools.partial(mixing.erase, probability=0.25))
    return np.asarray(erase(jax.random.key(0), image))


def boxes(erased):
    """Bounds of what isn't zero in the images that were erased: `[n 4]`."""
    hit = erased[(erased != 0).any(axis=(1, 2, 3))][..., 0] != 0
    rows, columns = hit.any(2), hit.any(1)
    top, left = rows.argmax(1), columns.argmax(1)
    height, width = rows.sum(1), columns.sum(1)
    np.testing.assert_array_equal(hit.sum((1, 2)), height * width)  # full rectangles
    return np.stack([top, left, height, width], axis=1)


def test_a_quarter_of_the_images_lose_a_rectangle(erased):
    share = len(boxes(erased)) / len(erased)
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)


def test_areas_and_aspects_follow_their_laws(erased):
    """Uniform between 2 % and a third; log-uniform about 1; both but for rounding."""
    _, _, height, width = boxes(erased).T
    area = height * width / (40 * 30)
    assert area.min() > 0.015 and area.max() < 0.36
    # Tall ones that don't fit are drawn again, so the mean is a little lower.
    assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.02
    ratio = np.log(height / width)
    assert np.abs(ratio).max() < -math.log(0.3) + 0.3
    low, high = np.quantile(area, [0.25, 0.75])
    assert abs(low - 0.098) < 0.025 and abs(high - 0.255) < 0.03
    assert abs(np.mean(ratio > 0) - 0.5) < 0.1


def test_rectangles_reach_every_edge(erased):
    top, left, height, width = boxes(erased).T
    assert top.min() == 0 and left.min() == 0
    assert (top + height).max() == 40 and (left + width).max() == 30
    middle = (top + height / 2) / 40
    assert abs(middle.mean() - 0.5) < 0.04


def test_what_is_erased_is_noise_of_every_channel(erased):
    noise = erased[erased != 0]
    assert len(noise) > 50_000
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    hit = erased[(erased != 0).all(axis=-1)]
    correlation = np.corrcoef(hit.T)
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_probability_0_and_1_of_erasing():
    image, key = jnp.zeros((16, 32, 32, 3)), jax.random.key(1)
    still, all_hit = (mixing.erase(key, image, probability=p) for p in (0.0, 1.0))
    np.testing.assert_array_equal(still, image)
    assert np.all((np.asarray(all_hit) != 0).any(axis=(1, 2, 3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.2, 0.8, 1.0]))
def test_cutmix_shares_agree_with_its_pixels(seed, alpha):
    image = constants(4)
    out, share = mix(jax.random.key(seed), image, mixup=0.0, cutmix=alpha)
    out, share = np.asarray(out), np.asarray(share)
    own = np.arange(4).reshape(4, 1, 1, 1)
    assert np.all((out == own) | (out == 3 - own))  # whole pixels of either
    np.testing.assert_allclose((out == own).mean(axis=(1, 2, 3)), share, rtol=1e-6)
    assert np.all(share == share[0])
    taken = (out != own)[:, :, :, 0]
    assert np.all(taken == taken[:1])  # one box for all


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_mixup_is_a_weighted_mean_with_the_mirrored_batch(seed):
    image = jax.random.normal(jax.random.key(3), (4, 8, 8, 3))
    out, share = mix(jax.random.key(seed), image, cutmix=0.0)
    assert np.all(share == share[0]) and 0 <= share[0] <= 1
    expected = share[0] * image + (1 - share[0]) * image[::-1]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def draws(count, **settings):
    """Shares and whether CutMix was used, of `count` keys."""

    def one(key):
        image = constants(2)
        out, share = mixing.mix(key, image, **(MIX | settings))
        whole = (out == jnp.round(out)).all()
        return share[0], whole & (share[0] < 1)

    keys = jax.random.split(jax.random.key(5), count)
    return (np.asarray(x) for x in jax.jit(jax.vmap(one))(keys))


def test_mixups_share_has_the_moments_of_its_beta_law():
    """Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))."""
    share, _ = draws(4000, cutmix=0.0, mixup=0.8)
    assert abs(share.mean() - 0.5) < 0.025
    assert abs(share.var() - 1 / (4 * 2.6)) < 0.006


def test_the_switch_and_the_probability_are_kept():
    share, cut = draws(4000, switch=0.3, probability=0.6)
    assert abs(np.mean(share < 1) - 0.6) < 0.03
    # A box that is empty isn't seen as one: 8 px, so about one in 20.
    assert 0.24 < np.mean(cut[share < 1]) < 0.33
    share, _ = draws(50, probability=0.0)
    assert np.all(share == 1)


def test_a_batch_that_is_not_mixed_is_untouched():
    image = jax.random.normal(jax.random.key(3), (4, 8, 8, 3))
    out, share = mix(jax.random.key(0), image, probability=0.0)
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(share, np.ones(4))


def test_the_middle_of_an_odd_batch_stays():
    image = jax.random.normal(jax.random.key(3), (5, 8, 8, 3))
    for seed in range(4):
        out, _ = mix(jax.random.key(seed), image)
        np.testing.assert_allclose(out[2], image[2], atol=1e-6)


@pytest.mark.parametrize("groups", [3, 24])
def test_groups_are_mixed_each_by_a_draw_of_its_own(groups):
    """As many as divide the 12 images; labels come from where the pixels do."""
    numbers = jnp.arange(12.0)
    image = jnp.broadcast_to(numbers[:, None, None, None], (12, 8, 8, 3))
    key, how = jax.random.key(1), MIX | dict(cutmix=0.0)
    out, share = mixing.mix_in_groups(key, image, groups=groups, **how)
    count = min(groups, 12)
    assert len(np.unique(np.asarray(share).round(6))) == count
    partner = mixing.partners(numbers, groups)
    expected = share * numbers + (1 - share) * partner
    np.testing.assert_allclose(out[:, 0, 0, 0], expected, rtol=1e-5)
    assert (jnp.arange(12) // (12 // count) == partner // (12 // count)).all()
