"""Maps: indices of palettes, classes that are none, metres, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import maps
from vit_ssl_jax.errors import UserError


def png(array, palette=False):
    """A PNG of an array; with a palette of colours that are no indices."""
    image = Image.fromarray(array)
    if palette:
        image = Image.fromarray(array, mode="P")
        image.putpalette([(7 * i + 128) % 256 for i in range(768)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


READ = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)


def test_a_palettes_indices_are_the_classes_not_its_colours():
    for encoded in (png(READ), png(READ, palette=True), READ, READ[..., None]):
        np.testing.assert_array_equal(maps.Classes(4).decode(encoded, "x"), READ)


def test_zero_may_be_none_as_in_ade20k():
    found = maps.Classes(3, zero_is_none=True).decode(png(READ), "x")
    np.testing.assert_array_equal(found, [[255, 0, 1], [2, 255, 255]])


def test_sixteen_bits_of_classes_are_read():
    wide = np.array([[0, 5], [254, 255]], np.uint16)
    np.testing.assert_array_equal(maps.Classes(255).decode(png(wide), "x"), wide)


@pytest.mark.parametrize(
    ("kind", "encoded", "said"),
    [
        (
            maps.Classes(3),
            png(READ),
            r"x: its map has class 3, but the 3 classes are 0 ",
        ),
        (
            maps.Classes(2, True),
            png(READ),
            "map has class 3, but the 2 classes are 1 to 2",
        ),
        (maps.Classes(4), png(np.stack([READ] * 3, -1)), r"is in colours \(RGB\)"),
        (maps.Classes(4), READ[None].repeat(3, 0).transpose(1, 2, 0), "has shape"),
        (maps.Classes(4), np.float32(READ), "has fractions"),
        (maps.Classes(4), png(READ)[:-30], "its map can't be read"),
        (maps.Classes(4), b"nothing", "its map can't be read"),
        (maps.Depth(), png(READ), "its depths have 8 bits"),
        (maps.Depth(), png(np.stack([READ] * 3, -1)), "is in colours"),
    ],
)
def test_what_is_no_map_is_told(kind, encoded, said):
    with pytest.raises(UserError, match=said):
        kind.decode(encoded, "x")


def test_depths_are_metres_and_zero_where_none_was_measured():
    wide = np.array([[0, 1500], [9999, 65535]], np.uint16)
    found = maps.Depth().decode(png(wide), "x")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 1.5], [9.999, 65.535]], rtol=1e-6)
    metres = np.array([[np.nan, 1.5], [-1.0, np.inf]], np.float16)
    found = maps.Depth().decode(metres, "x")
    np.testing.assert_array_equal(found, [[0, 1.5], [0, 0]])


def test_classes_are_resized_to_the_nearest_and_depths_never_mixed_with_none():
    read = np.array([[1, 200], [7, 255]], np.uint8)
    found = maps.Classes(255).resize(read, (6, 8))
    np.testing.assert_array_equal(found, read.repeat(3, 0).repeat(4, 1))
    depth = np.full((4, 4), 2.0, np.float32)
    depth[:, 2:] = 4.0
    depth[0, 0] = 0.0
    found = maps.Depth().resize(depth, (16, 16))
    assert set(found.ravel().tolist()) <= {0.0, 2.0, 2.25, 2.75, 3.25, 3.75, 4.0}
    assert (found[:2, :2] == 0).all() and (found[8:] > 0).all()
    assert not ((found > 0) & (found < 2)).any()
