"""What was received, copied to where it belongs."""

import jax
import numpy as np
import pytest

from tests.kernels import simulator
from vit_ssl_jax.kernels import placing

MOVES = [
    # Two senders' halves of the rows of an 8x4, in pieces of two columns.
    [(s, 4 * p, 4, 4 * s, 2 * p) for s in range(2) for p in range(2)],
    # Of a 6x2 every sender has each third row.
    [(s, 8 + i, 1, 2 * i + s, 0) for s in range(2) for i in range(3)],
]


# The only kernel that copies by itself, so it is always simulated, too: the interpreter
# copies at once, whether the kernel waits for it or not.
@pytest.mark.parametrize(
    "interpret", [True, simulator.SIMULATOR], ids=["interpreter", "simulator"]
)
def test_parts_lie_where_they_belong_and_other_layers_stay(interpret):
    rng = np.random.default_rng(0)
    received = np.float32(rng.normal(size=(2, 11, 2)))
    arrays = [np.float32(rng.normal(size=shape)) for shape in ((3, 8, 4), (3, 6, 2))]
    placed = placing.place(1, received, arrays, MOVES, interpret=interpret)
    first = received[:, :8].reshape(2, 2, 4, 2).transpose(0, 2, 1, 3).reshape(8, 4)
    second = received[:, 8:].swapaxes(0, 1).reshape(6, 2)
    for old, new, layer in zip(arrays, placed, (first, second)):
        np.testing.assert_array_equal(new[1], layer)
        np.testing.assert_array_equal(new[0], old[0])
        np.testing.assert_array_equal(new[2], old[2])


def test_it_is_traced_for_a_layer_that_is_not_known():
    shapes = [jax.ShapeDtypeStruct(s, np.float32) for s in ((3, 8, 4), (3, 6, 2))]
    received = jax.ShapeDtypeStruct((2, 11, 2), np.float32)
    found = jax.eval_shape(
        lambda i, received, arrays: placing.place(i, received, arrays, MOVES),
        jax.ShapeDtypeStruct((), np.int32),
        received,
        shapes,
    )
    assert [x.shape for x in found] == [x.shape for x in shapes]


def test_only_whole_tiles_fit():
    assert placing.fits([(0, 8, 16, 24, 128)])
    for parts in (
        (0, 4, 16, 24, 128),
        (0, 8, 4, 24, 0),
        (0, 8, 8, 2, 0),
        (0, 0, 8, 0, 64),
    ):
        assert not placing.fits([parts])
