"""Lab against scikit-image; bins, shares and weights against published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color

from vit_ssl_jax import partition
from vit_ssl_jax.ops import lab

NAMED = {  # sRGB: Lab
    (1, 0, 0): (53.24059, 80.09231, 67.20275),
    (0, 1, 0): (87.7351, -86.18303, 83.1797),
    (0, 0, 1): (32.29567, 79.18559, -107.8573),
    (1, 1, 1): (100, -0.00245, 0.00465),
    (0, 0, 0): (0, 0, 0),
    (0.2, 0.4, 0.6): (42.008, -0.15404, -32.8429),
}


def colours(count=2000, seed=0):
    """Random sRGB colours, dark ones and corners of the cube among them."""
    rng = np.random.default_rng(seed)
    corners = np.indices((2, 2, 2)).reshape(3, -1).T
    dark = 0.05 * rng.random((count // 4, 3))
    return np.float32(np.concatenate([corners, dark, rng.random((count, 3))]))


@pytest.mark.parametrize(("rgb", "expected"), NAMED.items())
def test_named_colours(rgb, expected):
    np.testing.assert_allclose(lab.rgb_to_lab(jnp.float32(rgb)), expected, atol=1e-3)


def test_lab_is_that_of_scikit_image():
    rgb = colours()
    out = lab.rgb_to_lab(jnp.asarray(rgb))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, color.rgb2lab(np.float64(rgb)), atol=1e-3)
    image = rgb[:2000].reshape(2, 10, 100, 3)
    np.testing.assert_array_equal(
        lab.rgb_to_lab(image), lab.rgb_to_lab(rgb[:2000]).reshape(image.shape)
    )


def test_numpy_and_jax_compute_the_same():
    rgb = np.float64(colours())
    out = lab.rgb_to_lab(rgb, np)
    assert isinstance(out, np.ndarray) and out.dtype == np.float64
    np.testing.assert_allclose(out, color.rgb2lab(rgb), atol=1e-9)


def test_rgb_is_that_of_scikit_image_and_comes_back():
    rgb = colours()
    out = lab.lab_to_rgb(lab.rgb_to_lab(rgb))
    np.testing.assert_allclose(out, rgb, atol=1e-4)
    values = np.float32(color.rgb2lab(rgb))
    np.testing.assert_allclose(lab.lab_to_rgb(values), color.lab2rgb(values), atol=1e-4)


def test_what_is_no_colour_is_clipped():
    out = lab.lab_to_rgb(jnp.float32([[50, 120, 120], [-5, 0, 0], [120, -80, 90]]))
    assert np.isfinite(out).all() and np.all((out >= 0) & (out <= 1))


def test_bins_are_those_of_the_rule():
    bins = lab.bins()
    assert bins.shape == (261, 2) and bins.dtype == np.float32
    np.testing.assert_array_equal(bins[:3], [[-90, 80], [-80, 40], [-80, 50]])
    np.testing.assert_array_equal(bins[-1], [100, -50])
    np.testing.assert_array_equal(bins.min(0), [-90, -110])
    np.testing.assert_array_equal(bins.max(0), [100, 90])
    assert np.all(np.lexsort(bins.T[::-1]) == np.arange(261))


def test_every_colour_is_rounded_to_a_bin():
    values = color.rgb2lab(np.float64(colours(20000, seed=1)))[:, 1:]
    rounded = {tuple(x) for x in 10.0 * np.round(values / 10) + 0.0}
    assert len(rounded) > 200
    assert rounded <= {tuple(x) for x in lab.bins()}


# The published vectors: nearest five bins of a chroma and their shares.
SHARES = {
    (3, -7): (
        [(0, -10), (0, 0), (10, -10), (10, 0), (-10, -10)],
        [0.467002, 0.209838, 0.209838, 0.094286, 0.019036],
    ),
    (12.5, 41): (
        [(10, 40), (20, 40), (10, 50), (10, 30), (20, 50)],
        [0.576446, 0.212063, 0.116382, 0.052294, 0.042815],
    ),
}


@pytest.mark.parametrize(("ab", "expected"), SHARES.items())
def test_shares_of_the_five_nearest_bins(ab, expected):
    ids, weights = lab.soft_encode(jnp.float32(ab), 5, 5.0)
    np.testing.assert_array_equal(lab.bins()[ids], expected[0])
    np.testing.assert_allclose(weights, expected[1], atol=1e-6)


def test_of_bins_as_far_away_the_lower_id_is_first():
    ids, d2 = lab.nearest_bins(jnp.float32([[5, 5], [0, 0]]), 5)
    ids = np.asarray(ids)
    np.testing.assert_array_equal(d2, [[50, 50, 50, 50, 250], [0, 100, 100, 100, 100]])
    assert np.all(np.diff(ids[0, :4]) > 0) and np.all(np.diff(ids[1, 1:]) > 0)
    corners = [(0, 0), (0, 10), (10, 0), (10, 10)]
    np.testing.assert_array_equal(lab.bins()[ids[0, :4]], corners)


@pytest.mark.parametrize("count", [1, 5, 10, 261])
def test_nearest_bins_are_those_of_all_distances(count):
    """Colours, means of colours, lattice points, and the rest of the bins' box."""
    rng = np.random.default_rng(2)
    values = color.rgb2lab(colours(1000))[:, 1:]
    means = (values + rng.permutation(values)) / 2
    low, high = np.array([-95, -115]), np.array([105, 95])
    lattice = low + 2.5 * rng.integers(0, 81, (1000, 2))
    rest = rng.uniform(low, high, (1000, 2))
    points = np.float32(np.concatenate([values, means, lattice, rest]))
    assert np.all((points >= low) & (points <= high))
    ids, d2 = lab.nearest_bins(jnp.asarray(points), count)
    far = np.square(points[:, None] - lab.bins()).sum(-1)  # float32, as there
    order = np.argsort(far, axis=1, kind="stable")[:, :count]
    np.testing.assert_allclose(d2, np.take_along_axis(far, order, 1), rtol=1e-5)
    same = np.asarray(ids) == order
    # Where they differ, the two bins are as far away but for rounding.
    assert same.mean() > 0.999
    chosen = np.take_along_axis(far, np.asarray(ids), 1)
    np.testing.assert_allclose(chosen, np.take_along_axis(far, order, 1), rtol=1e-5)


def test_a_batch_over_devices_is_not_gathered():
    mesh = partition.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    layout = partition.batch_sharding(mesh)
    ab = jax.ShapeDtypeStruct((8, 4, 2), jnp.float32, sharding=layout)
    encode = jax.jit(lambda ab: lab.soft_encode(ab, 10, 5.0))
    assert "all-gather" not in encode.lower(ab).compile().as_text()


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(*[st.floats(-300, 300, width=32)] * 2), st.sampled_from([0.5, 5.0, 50.0])
)
def test_shares_sum_to_one_and_fall_with_distance(ab, sigma):
    _, weights = lab.soft_encode(jnp.float32(ab), 10, sigma)
    assert abs(float(weights.sum()) - 1) < 1e-5
    assert np.all(np.diff(weights) <= 0)


def test_annealed_mean_is_the_published_one():
    logits = jnp.float32([[2, 1, 0, -1]])
    centres = np.float32([[0, 0], [10, 0], [0, 10], [20, 20]])
    out = lab.annealed_mean(logits, centres, 0.38)
    np.testing.assert_allclose(out, [[0.674794, 0.054981]], atol=2e-6)
    shares = np.exp([2, 1, 0, -1]) / np.exp([2, 1, 0, -1]).sum()
    mean = lab.annealed_mean(logits, centres, 1.0)
    np.testing.assert_allclose(mean, [shares @ centres], rtol=1e-6)
    mode = lab.annealed_mean(logits, centres, 0.01)
    np.testing.assert_allclose(mode, [[0, 0]], atol=1e-6)


def test_smoothing_keeps_the_whole_and_follows_the_gaussian():
    at = {tuple(x): i for i, x in enumerate(lab.bins())}
    edge = jnp.zeros(261).at[0].set(0.25)
    prior = edge.at[at[0, 0]].set(0.75)
    out = np.asarray(lab.smooth(prior, 5.0))
    assert out.sum() == pytest.approx(1, abs=1e-6)
    assert out[at[10, 0]] / out[at[0, 0]] == pytest.approx(np.exp(-2), rel=1e-5)
    assert out[at[10, 10]] / out[at[0, 0]] == pytest.approx(np.exp(-4), rel=1e-5)
    # The sum over a whole plane of bins, of which the gamut holds all that matter here.
    line = np.exp(-np.square(10.0 * np.arange(-9, 10)) / 50).sum()
    assert out[at[0, 0]] == pytest.approx(0.75 / line**2, rel=1e-4)
    np.testing.assert_array_equal(lab.smooth(prior, 0.1), prior)


def test_weights_of_colours_are_the_published_ones():
    prior = jnp.float32([0.7, 0.2, 0.1])
    out = lab.rebalance(prior, prior, 0.5)
    np.testing.assert_allclose(out, [0.75416969, 1.46120377, 1.79840464], rtol=1e-6)


@pytest.mark.parametrize("uniform", [0.01, 0.5, 1.0])
def test_weights_have_mean_one_and_prefer_the_rare(uniform):
    prior = np.random.default_rng(0).dirichlet(np.ones(261)).astype(np.float32)
    prior[0] = 0.0  # a colour that was never seen
    prior /= prior.sum()
    smoothed = np.asarray(lab.smooth(jnp.asarray(prior), 5.0))
    weights = np.asarray(lab.rebalance(jnp.asarray(prior), smoothed, uniform))
    assert prior @ weights == pytest.approx(1, rel=1e-5)
    falls = np.diff(weights[np.argsort(smoothed)])
    assert np.all(falls <= 0)
    if uniform == 1.0:
        np.testing.assert_allclose(weights, weights[0], rtol=1e-6)
    else:
        assert np.all(falls[:3] < 0)
