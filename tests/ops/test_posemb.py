"""Position tables and their resampling, against published numbers."""

import numpy as np
import pytest

from vit_ssl_jax.ops import posemb


def test_table_of_mae_and_ijepa():
    table = posemb.sincos((14, 14), 768)
    assert table.shape == (196, 768) and table.dtype == np.float32
    dims = [0, 1, 191, 192, 193, 383]
    column_1 = [0.84147098, 0.81525065, 0.00010491, 0.54030231, 0.57910826, 0.99999999]
    column_13 = [0.42016704, -0.1743702, 0.00136388, 0.90744678, 0.98468017, 0.99999907]
    np.testing.assert_allclose(table[1, dims], column_1, atol=1e-7)
    np.testing.assert_allclose(table[13, dims], column_13, atol=1e-7)
    assert table[1, 384] == 0 and np.all(table[1, 576:] == 1)  # row 0
    row_1 = [0.84147098, 0.81525065, 0.00010491]
    np.testing.assert_allclose(table[14, [384, 385, 575]], row_1, atol=1e-7)
    assert table.sum(dtype=float) == pytest.approx(69594.493859, abs=1e-3)
    assert np.abs(table).sum(dtype=float) == pytest.approx(84118.415685, abs=1e-3)
    np.testing.assert_allclose(np.square(table.astype(float)).sum(1), 384, rtol=1e-6)


def test_table_of_the_decoder():
    table = posemb.sincos((14, 14), 512)
    assert table.sum(dtype=float) == pytest.approx(46340.333103, abs=1e-3)
    expected = [0.84147098, 0.8019618, 0.00010746]
    np.testing.assert_allclose(table[1, [0, 1, 127]], expected, atol=1e-7)


def test_table_of_big_vision():
    ours = posemb.sincos((14, 14), 768, endpoint=True)
    np.testing.assert_allclose(
        ours[1, [0, 1, 191]], [0.841471, 0.815112, 1e-4], atol=1e-6
    )
    assert np.abs(ours - posemb.sincos((14, 14), 768)).max() == pytest.approx(
        0.025, abs=1e-3
    )


def test_non_square_grid_is_a_part_of_the_square_one():
    square = posemb.sincos((7, 7), 32).reshape(7, 7, 32)
    wide = posemb.sincos((3, 7), 32).reshape(3, 7, 32)
    tall = posemb.sincos((7, 2), 32).reshape(7, 2, 32)
    np.testing.assert_array_equal(wide, square[:3])
    np.testing.assert_array_equal(tall, square[:, :2])


def test_width_must_be_divisible_by_four():
    with pytest.raises(ValueError, match="width=6"):
        posemb.sincos((2, 2), 6)


FIRST_ROWS = {
    8: [-0.527344, -0.230469, 0.246094, 0.875, 1.28125, 1.910156, 2.386719, 2.683594],
    6: [-0.434028, 0.059028, 0.865741, 1.439815, 2.246528, 2.739584],
    2: [2.03125, 4.21875],
}


@pytest.mark.parametrize("side", FIRST_ROWS)
def test_resample_is_torchs_bicubic(side):
    ramp = np.arange(16, dtype=np.float32)[:, None]
    out = posemb.resample(ramp, (4, 4), (side, side))
    assert out.shape == (side * side, 1) and out.dtype == np.float32
    np.testing.assert_allclose(out[:side, 0], FIRST_ROWS[side], atol=1e-5)
    if side == 2:
        np.testing.assert_allclose(out[2:, 0], [10.78125, 12.96875], atol=1e-5)


def test_resample_turns_with_the_grid():
    table = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    out = posemb.resample(table.reshape(15, 2), (3, 5), (4, 9)).reshape(4, 9, 2)
    turned = table.swapaxes(0, 1).reshape(15, 2)
    back = posemb.resample(turned, (5, 3), (9, 4)).reshape(9, 4, 2)
    np.testing.assert_allclose(out, back.swapaxes(0, 1), atol=1e-6)


def test_resample_keeps_a_constant_and_the_class_row():
    table = np.full((1 + 6, 2), 3.0, np.float32)
    table[0] = [7.0, 8.0]
    out = posemb.resample(table, (2, 3), (5, 4))
    assert out.shape == (1 + 20, 2)
    np.testing.assert_array_equal(out[0], table[0])
    np.testing.assert_allclose(out[1:], 3.0, rtol=1e-6)


def test_same_grid_changes_no_bit():
    table = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_array_equal(posemb.resample(table, (3, 3), (3, 3)), table)


def test_a_table_that_cannot_hold_the_grid():
    with pytest.raises(ValueError, match="table of 3 rows"):
        posemb.resample(np.zeros((3, 2)), (2, 2), (4, 4))


@pytest.mark.parametrize(("old", "new"), [(14, 6), (8, 4), (5, 7)])
def test_an_excess_is_torchs_sampling_by_a_given_factor(old, new):
    torch = pytest.importorskip("torch")
    ramp = np.random.default_rng(old).normal(size=(1, 1, old, old))
    factor = (new + 0.1) / old
    theirs = torch.nn.functional.interpolate(
        torch.tensor(ramp), scale_factor=(factor, factor), mode="bicubic"
    )
    weights = posemb.bicubic_matrix(old, new, 0.1)
    expected = theirs.numpy()[0, 0]
    np.testing.assert_allclose(weights @ ramp[0, 0] @ weights.T, expected, atol=1e-12)
    table = np.float32(ramp).reshape(1, -1, 1)
    found = posemb.resize(table, (old, old), (new, new), (weights, weights))
    np.testing.assert_allclose(found[0, :, 0], expected.ravel(), atol=1e-5)
