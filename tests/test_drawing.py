"""Rows and sheets of pictures: what is where, and in which order."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build, drawing
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError


def numbered(count, broken=()):
    """Images that are as light as their number."""

    def read(i):
        return (b"no image" if i in broken else np.full((8, 8, 3), i, np.uint8)), i % 3

    return Source("numbers", count, read, where=str, class_names=("a", "b", "c"))


DATA = types.SimpleNamespace(
    size=(8, 8), resize=8, squash=False, interpolation="bilinear"
)


@pytest.mark.parametrize(
    ("length", "wanted"), [(4, [0, 1, 2, 3]), (103, [0, 25, 51, 77])]
)
def test_images_are_from_all_over_the_source(length, wanted):
    batch = drawing.read(numbered(length), DATA, 4, (8, 8))
    assert (batch["image"] == np.reshape(wanted, (4, 1, 1, 1))).all()
    np.testing.assert_array_equal(batch["label"], np.array(wanted) % 3)
    assert set(batch) == {"image", "label", "id"}


def test_a_broken_image_is_black_and_all_broken_are_refused():
    batch = drawing.read(numbered(100, broken=(50,)), DATA, 4, (8, 8))
    assert batch["image"].max((1, 2, 3)).tolist() == [0, 25, 0, 75]
    with pytest.raises(UserError):
        drawing.read(numbered(100, broken=range(100)), DATA, 4, (8, 8))


def test_rows_have_one_width_and_keep_their_order():
    rng = np.random.default_rng(0)
    sides = dict(z=32, a=64, m=20)
    rows = {k: rng.integers(0, 256, (3, n, n, 3), np.uint8) for k, n in sides.items()}
    rows["class"] = np.int32([2, -1, 7])
    rows["share"] = np.float32([0.934, 0, 1])
    found = drawing.lay_out(rows, ("cat", "dog", "a bird of a very long name indeed"))
    assert list(found) == list(rows)
    width = 128  # of 64 px, the widest, as often as comes nearest to 96
    assert {x.shape[1] for x in found.values()} == {3 * (width + 2) - 2}
    np.testing.assert_array_equal(found["z"][::4, 130:258:4], rows["z"][1])
    np.testing.assert_array_equal(found["a"][1::2, 1:128:2], rows["a"][0])
    assert (found["z"][:, 128:130] == 255).all()
    words = drawing.captions(rows["class"], ("cat", "dog", "bird"))
    assert words == ["bird", "-", "7"]
    assert drawing.captions(rows["share"], ()) == ["93 %", "0 %", "100 %"]
    assert (found["class"] < 128).any() and found["class"].shape[0] == 14
    sheet = drawing.sheet(found)
    assert sheet.width == found["z"].shape[1]
    assert sheet.height == sum(x.shape[0] + 16 for x in found.values())
    np.testing.assert_array_equal(np.asarray(sheet)[14 : 14 + 128], found["z"])


def test_words_are_cut_to_their_column():
    assert drawing.fit("short", 100) == "short"
    cut = drawing.fit("a name that is far too long for its place", 100)
    assert cut.startswith("a name") and cut.endswith("...")
    assert "?" in drawing.fit("\u732b", 100)  # what the font doesn't have
    assert drawing.fit("two\nlines\udcff", 100) == "two lines?"


def test_the_images_are_first_and_the_method_follows_in_its_order():
    """On eight devices, over which three images don't divide."""
    rng = np.random.default_rng(0)
    batch = dict(
        image=rng.integers(0, 256, (3, 32, 32, 3), np.uint8),
        label=np.zeros(3, np.int32),
        id=np.arange(3, dtype=np.int32),
    )
    run = build.make_run(runs.small(batch_size=8))
    assert len(run.mesh.devices.flat) == 8
    state = run.program.init(jax.random.key(0))
    program = drawing.make_program(run, 3)
    rows = drawing.draw_rows(program, run, state, batch, 0, ())
    assert [name.partition(",")[0] for name in rows] == [
        *("original", "masked", "prediction", "prediction pasted in"),
        *("85 % hidden: masked", "85 % hidden: prediction pasted in"),
    ]
    for i in range(3):
        shown = rows["original"][::3, 98 * i : 98 * i + 96 : 3]
        np.testing.assert_array_equal(shown, batch["image"][i])
    assert all(row.shape == (96, 3 * 98 - 2, 3) for row in rows.values())


def test_larger_images_are_shown_at_the_size_of_the_views():
    image = jnp.ones((2, 48, 48, 3)) * 0.5
    found = drawing.shrink(image, (32, 32))
    assert found.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(found, 0.5, atol=1e-6)
    assert drawing.shrink(image, (48, 48)) is image
