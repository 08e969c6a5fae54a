"""RandAugment: the laws of what is drawn, and the strings that name them."""

import collections
import concurrent.futures

import numpy as np
import pytest
from scipy import stats

from vit_ssl_jax.data import randaugment
from vit_ssl_jax.data.randaugment import make_randaugment
from vit_ssl_jax.errors import UserError

MAE = "rand-m9-mstd0.5-inc1"
MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)  # 255 * MEAN, rounded


def picture(height=40, width=30, seed=0):
    """Smooth colours and some noise: uint8 `[height width 3]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + c) + np.cos(y / (5 + c)) for c in range(3)]
    noise = rng.normal(0, 4, (height, width, 3))
    return (np.stack(waves, -1) * 50 + 128 + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def drawn(monkeypatch):
    """What is asked of `distort`, image by image, for a string and a number of images."""

    def draw(text, count):
        asked = []

        def note(image, name, level, *, fill, inc):
            assert fill == FILL
            asked[-1].append((name, level, inc))
            return image

        monkeypatch.setattr(randaugment, "distort", note)
        augment, rng = make_randaugment(text, MEAN), np.random.default_rng(0)
        for _ in range(count):
            asked.append([])
            augment(rng, np.zeros((2, 2, 3), np.uint8))
        return asked

    return draw


def test_two_of_fifteen_with_replacement_each_done_half_of_the_time(drawn):
    asked = drawn(MAE, 6000)
    counts = np.bincount([len(one) for one in asked])
    assert np.abs(counts / 6000 - [0.25, 0.5, 0.25]).max() < 0.025
    names = collections.Counter(name for one in asked for name, _, _ in one)
    assert len(names) == 15
    assert stats.chisquare(list(names.values())).pvalue > 1e-3
    twice = [one[0][0] == one[1][0] for one in asked if len(one) == 2]
    assert abs(np.mean(twice) - 1 / 15) < 0.03
    assert all(inc for one in asked for _, _, inc in one)


@pytest.mark.parametrize(("m", "mstd"), [(9, 0.5), (5, 2)])
def test_magnitudes_are_normal_and_cut_at_ten(drawn, m, mstd):
    asked = drawn(f"rand-m{m}-mstd{mstd}-n1-p1", 4000)
    levels = 10 * np.array([level for ((_, level, _),) in asked])
    assert abs(np.mean(levels < 0) - 0.5) < 0.03
    sizes = np.abs(levels)
    assert sizes.max() <= 10
    inside = sizes[(sizes < 10) & (sizes > 0)]
    law = stats.truncnorm(-m / mstd, (10 - m) / mstd, m, mstd)
    assert stats.kstest(inside, law.cdf).pvalue > 1e-3
    assert abs(np.mean(sizes == 10) - stats.norm.sf(10, m, mstd)) < 0.01


def test_other_numbers_of_the_string(drawn):
    assert {len(one) for one in drawn("rand-m3-n4-p1", 50)} == {4}
    assert not any(drawn("rand-p0", 50))
    levels = {level for one in drawn("rand-m3-p1", 50) for _, level, _ in one}
    assert levels == {0.3, -0.3}
    assert {abs(x) for one in drawn("rand-p1", 50) for _, x, _ in one} == {1.0}


def test_same_draws_give_the_same_image_in_any_thread():
    image, augment = picture(), make_randaugment(MAE, MEAN)
    before = image.copy()

    def make(seed):
        return augment(np.random.default_rng(seed), image)

    ours = [make(seed) for seed in range(200)]
    assert {(x.shape, x.dtype) for x in ours} == {(image.shape, np.dtype(np.uint8))}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(make, range(200))), ours)
    np.testing.assert_array_equal(image, before)
    assert len({x.tobytes() for x in ours}) > 100


def test_nothing_is_asked_for():
    image = picture()
    assert make_randaugment("", MEAN)(np.random.default_rng(0), image) is image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m9-w0", "isn't understood"),
        ("augmix-m9", "isn't understood"),
        ("rand m9", "isn't understood"),
        ("rand-m", "isn't understood"),
        ("rand-m-9", "isn't understood"),
        ("rand-m9-", "isn't understood"),
        ("rand-m9-m8", "twice"),
        ("rand-m11", "m11 .* from 0 to 10"),
        ("rand-mstd101", "mstd101"),
        ("rand-n0", "n0 .* at least 1"),
        ("rand-n1.5", "n1.5"),
        ("rand-p2", "p2 .* from 0 to 1"),
        ("rand-inc2", "inc2 .* 0 or 1"),
    ],
)
def test_strings_that_make_no_sense(text, message):
    with pytest.raises(UserError, match=f"config.data.randaugment: .*{message}"):
        make_randaugment(text, MEAN)
