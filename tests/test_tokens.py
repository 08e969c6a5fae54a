"""Tokens of other encoders: where positions, class token and registers are put."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import tokens, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.ops import posemb

THEIRS = {"vit.variant": "2x8x2/4", "data.size": [16, 16], "vit.posemb": "learned"}


def encoder(grid, kind="learned", cls=True, width=8):
    """What `tokens.place_encoder` asks of a ViT."""
    return types.SimpleNamespace(grid=grid, posemb=kind, cls=cls, width=width)


def place(table, vit, **changes):
    """`tokens.place_encoder` with the run that most tests come from."""
    return tokens.place_encoder(table, vit, THEIRS | changes)


def table(rows, cls=True, width=8, seed=0):
    """A learned table of random numbers."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, rows + cls, width)).astype(np.float32)


def test_a_learned_table_of_the_same_grid_stays():
    old = table(16)
    new, lines = place(old, encoder((4, 4)))
    np.testing.assert_array_equal(new, old)
    assert lines == []


@pytest.mark.parametrize("grid", [(6, 6), (8, 4), (3, 5)])
def test_a_learned_table_is_resampled_and_the_class_row_kept(grid):
    old = table(16)
    new, lines = place(old, encoder(grid))
    np.testing.assert_array_equal(new[0, 0], old[0, 0])
    expected = posemb.resample(old[0], (4, 4), grid)
    np.testing.assert_array_equal(new[0], expected)
    rows, columns = grid
    said = f"a grid of {rows}x{columns} patches, not 4x4"
    assert lines == [f"encoder: its position table is resampled for {said}"]


def test_resampling_is_the_published_bicubic():
    """arange(16) as 4 x 4 to 8 x 8: the first row as MAE's interpolate_pos_embed."""
    old = np.arange(16, dtype=np.float32).reshape(1, 16, 1)
    new, _ = place(old, encoder((8, 8), cls=False, width=1))
    first = [-0.527344, -0.230469, 0.246094, 0.875]
    first += [1.28125, 1.910156, 2.386719, 2.683594]
    np.testing.assert_allclose(new[0, :8, 0], first, atol=1e-6)


def test_a_grid_that_is_not_square_comes_from_the_other_runs_size():
    old = table(8, cls=False)
    vit = encoder((4, 4), cls=False)
    new, _ = place(old, vit, **{"data.size": [8, 16]})
    np.testing.assert_array_equal(new[0], posemb.resample(old[0], (2, 4), (4, 4)))


def test_a_fixed_table_is_resampled_and_learned_from_there():
    new, lines = place(None, encoder((6, 6)), **{"vit.posemb": "sincos"})
    fixed = posemb.resample(posemb.sincos((4, 4), 8), (4, 4), (6, 6))
    np.testing.assert_array_equal(new[0, 1:], fixed)
    np.testing.assert_array_equal(new[0, 0], np.zeros(8))
    assert "its fixed position table is learned from here on" in lines[0]
    assert "resampled for a grid of 6x6" in lines[1]


def test_a_fixed_table_that_stays_fixed_is_made_anew():
    vit = encoder((6, 6), "sincos")
    new, lines = place(None, vit, **{"vit.posemb": "sincos"})
    assert new is None
    assert "made anew for a grid of 6x6 patches, not 4x4" in lines[0]
    assert place(None, encoder((4, 4), "sincos"), **{"vit.posemb": "sincos"}) == (
        None,
        [],
    )


def test_no_table_means_a_fresh_one():
    new, lines = place(None, encoder((6, 6)), **{"vit.posemb": "none"})
    assert new is None and "a fresh one is learned" in lines[0]


def test_a_table_that_its_config_does_not_describe_is_refused():
    with pytest.raises(UserError, match="has 10 rows, but its config.json says"):
        place(table(9), encoder((4, 4)))


@pytest.mark.parametrize("grid", [(4, 4), (6, 6)])
def test_a_table_follows_the_class_token(grid):
    """Its row is left out, or zero where the token is new."""
    old = table(16)
    bare, _ = place(old, encoder(grid, cls=False), **{"vit.cls": True})
    np.testing.assert_array_equal(bare[0], posemb.resample(old[0, 1:], (4, 4), grid))
    new, _ = place(old[:, 1:], encoder(grid), **{"vit.cls": False})
    np.testing.assert_array_equal(new[0, 1:], bare[0])
    np.testing.assert_array_equal(new[0, 0], np.zeros(8))


def test_registers_are_given_as_far_as_both_have_them():
    fresh = {"registers": jnp.zeros((1, 3, 2)), "w": jnp.zeros(1), "cls": jnp.zeros(1)}
    for count in (1, 3, 5):
        given = {"registers": jnp.ones((1, count, 2)), "w": jnp.ones(1)}
        merged = tokens.overlay(fresh, given)
        expected = np.arange(3)[:, None] < count
        np.testing.assert_array_equal(merged["registers"][0], np.repeat(expected, 2, 1))
        assert merged["w"][0] == 1.0 and merged["cls"][0] == 0.0
        assert set(merged) == set(fresh)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of one step whose ViT has a class token and a fixed table."""
    workdir = tmp_path_factory.mktemp("tokens") / "plain"
    train.train(runs.small(steps=1), workdir)
    return workdir


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(vit__cls=False), ["its class token is left out, here is none"]),
        pytest.param(
            dict(vit__variant="2x32x2/8,registers=2", vit__posemb="learned"),
            ["it has 0 registers, here are 2: fresh", "table is learned from here"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(vit__variant="2x32x2/8,rope=100.0", vit__posemb="none"),
            ["rotary positions of base 0, here it is 100", "'sincos', here it is 'n"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_starts_from_an_encoder_with_other_tokens(
    plain, tmp_path, changes, said, capsys
):
    """And back: the blocks are those of the other run, bit by bit."""
    train.train(
        runs.small(steps=1, init_from=str(plain), optim__lr=0.0, **changes), tmp_path
    )
    out = capsys.readouterr().out
    assert all(text in out for text in said)
    theirs, ours = runs.weights(plain), runs.weights(tmp_path)
    blocks = [name for name in theirs if name.startswith("params/encoder/blocks")]
    assert len(blocks) > 8
    for name in blocks:
        np.testing.assert_array_equal(ours[name], theirs[name])
    train.train(
        runs.small(steps=1, init_from=str(tmp_path), optim__lr=0.0), tmp_path / "back"
    )
    back = runs.weights(tmp_path / "back")
    for name in blocks:
        np.testing.assert_array_equal(back[name], theirs[name])
