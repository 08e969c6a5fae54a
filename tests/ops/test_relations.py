"""Labels of shuffled patches against hand-worked tables and what they must keep."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.ops import relations

# 3x3, row i is patch i, column j what it is to patch j.
NINE = """433100100 543210210 554221221 766433100 876543210 887554221
          766766433 876876543 887887554"""
COUNTS = {  # patches with each relation
    (2, 2): [1, 2, 1, 2, 4, 2, 1, 2, 1],
    (3, 3): [9] * 9,
    (4, 4): [36, 24, 36, 24, 16, 24, 36, 24, 36],
    (7, 7): [441, 147, 441, 147, 49, 147, 441, 147, 441],
    (8, 8): [784, 224, 784, 224, 64, 224, 784, 224, 784],
    (1, 3): [0, 0, 0, 3, 3, 3, 0, 0, 0],
}


def raster(grid):
    """The order of patches that nobody moved: `[1 N]`."""
    return jnp.arange(grid[0] * grid[1])[None]


def test_relations_of_three_by_three():
    ours = relations.relations(raster((3, 3)), (3, 3))
    assert ours.dtype == jnp.int32
    expected = [[int(x) for x in row] for row in NINE.split()]
    np.testing.assert_array_equal(ours[0], expected)


@pytest.mark.parametrize("grid", COUNTS)
def test_how_often_a_relation_holds(grid):
    ours = relations.relations(raster(grid), grid)
    counts = np.bincount(np.ravel(ours), minlength=relations.RELATIONS)
    np.testing.assert_array_equal(counts, COUNTS[grid])


def test_published_distances():
    three = [-1, -0.29289, 0.41421, -0.29289, 0, 0.58114, 0.41421, 0.58114, 1]
    ours = relations.distances(raster((3, 3)), (3, 3))
    np.testing.assert_allclose(ours[0, 0], three, atol=1e-5)
    eight = [-1, -0.79797, -0.59594, -0.39391, -0.19188, 0.01015, 0.21218, 0.41421]
    ours = relations.distances(raster((8, 8)), (8, 8))
    np.testing.assert_allclose(ours[0, 0, :8], eight, atol=1e-5)


def test_distances_of_a_grid_that_is_no_square():
    """Two rows, four columns: the diagonal is sqrt(10)."""
    ours = relations.distances(raster((2, 4)), (2, 4))[0]
    assert ours[0, 7] == pytest.approx(1) and ours[3, 4] == pytest.approx(1)
    assert ours[0, 3] == pytest.approx(2 * 3 / math.sqrt(10) - 1)
    assert ours[1, 6] == pytest.approx(2 * math.sqrt(2) / math.sqrt(10) - 1)


def test_published_angles():
    three = [-1, -0.35601, 0.00007, -0.35601, -0.98645, -0.56581, 0.00007, -0.56581]
    ours = relations.angles(raster((3, 3)), (3, 3))
    np.testing.assert_allclose(ours[0, 0], [*three, -0.98852], atol=1e-4)
    eight = [-1, -0.74651, -0.54788, -0.39019, -0.26309, -0.15906, -0.07267, 0.00001]
    ours = relations.angles(raster((8, 8)), (8, 8))
    np.testing.assert_allclose(ours[0, 0, :8], eight, atol=1e-4)


@pytest.mark.parametrize("grid", [(2, 2), (5, 5), (2, 4), (14, 14), (1, 3)])
def test_angles_are_those_of_arccos_in_float64(grid):
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    p = np.stack([cols + grid[1] / 2, rows + grid[0] / 2], axis=1)
    norms = np.linalg.norm(p, axis=1)
    angle = np.arccos(p @ p.T / (np.outer(norms, norms) + 1e-4))
    np.fill_diagonal(angle, 0)
    expected = 2 * angle / angle.max() - 1
    ours = relations.angles(raster(grid), grid)[0]
    np.testing.assert_allclose(ours, expected, atol=3e-6)


grids = st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda g: g != (1, 1))


@settings(max_examples=8, deadline=None)
@given(grid=grids, seed=st.integers(0, 2**32 - 1))
def test_moving_patches_moves_their_labels(grid, seed):
    """Row and column t of a pair label become those of the patch that token t shows."""
    order = np.random.default_rng(seed).permutation(grid[0] * grid[1])
    for label in (relations.relations, relations.distances, relations.angles):
        plain = np.asarray(label(raster(grid), grid))[0]
        moved = np.asarray(label(jnp.asarray(order)[None], grid))[0]
        np.testing.assert_allclose(moved, plain[order][:, order], atol=1e-6)
        if label is relations.relations:  # j to i is the opposite of i to j
            np.testing.assert_array_equal(plain + plain.T, 8)
        else:
            np.testing.assert_array_equal(plain, plain.T)
            assert plain.min() == -1 and plain.max() == pytest.approx(1)


def test_each_image_has_an_order_of_its_own():
    orders = jnp.array([[0, 1, 2, 3], [3, 1, 0, 2]])
    together = jax.jit(lambda x: relations.relations(x, (2, 2)))(orders)
    for i in range(2):
        alone = relations.relations(orders[i : i + 1], (2, 2))
        np.testing.assert_array_equal(together[i], alone[0])


def shuffled(grid, seed=0):
    """Orders of three images."""
    rng = np.random.default_rng(seed)
    return jnp.asarray([rng.permutation(grid[0] * grid[1]) for _ in range(3)])


@pytest.mark.parametrize("grid", [(3, 3), (8, 8), (2, 5), (1, 4)])
def test_true_relations_put_patches_back(grid):
    order = shuffled(grid)
    scores = jax.nn.one_hot(relations.relations(order, grid), 9)
    np.testing.assert_array_equal(relations.arrange(scores, grid), order)
    raw = jax.nn.one_hot(relations.relations(order, grid)[..., ::-1, ::-1], 9)
    assert (np.sort(relations.arrange(raw, grid)) == np.arange(order.shape[1])).all()


def test_many_right_relations_outvote_the_wrong_ones():
    """A quarter of all pairs told at random, and half of the rest only hinted at."""
    grid, order, rng = (8, 8), shuffled((8, 8)), np.random.default_rng(1)
    true = np.asarray(relations.relations(order, grid))
    said = np.where(rng.random(true.shape) < 0.25, rng.integers(0, 9, true.shape), true)
    scores = 8 * jax.nn.one_hot(said, 9) * rng.choice([0.2, 1], (*said.shape, 1))
    places = np.asarray(relations.arrange(scores, grid))
    rows, cols = (
        np.abs(a - b) for a, b in zip(np.divmod(places, 8), np.divmod(order, 8))
    )
    assert (rows + cols).mean() < 1.5  # of 5.25 where nothing is known
    assert (np.sort(places) == np.arange(64)).all()


def test_confusion_counts_answers_by_the_truth():
    true = jnp.array([[[4, 5], [3, 4]]])
    said = jnp.array([[[4, 5], [5, 0]]])
    expected = np.zeros((1, 9, 9))
    expected[0, 4, [0, 4]], expected[0, 5, 5], expected[0, 3, 5] = 0.5, 1, 1
    np.testing.assert_allclose(relations.confusion(said, true), expected)
