"""Packing is undone exactly, whatever the matrices' widths."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_ssl_jax.kernels import packing

SIZES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5
)


@given(sizes=SIZES, unit=st.integers(1, 3), lead=st.sampled_from([(), (2,)]))
@settings(max_examples=8, deadline=None)
def test_what_was_packed_is_found_again(sizes, unit, lead):
    rng = np.random.default_rng(0)
    shapes = [(rows, unit * times) for rows, times in sizes]
    matrices = [np.float32(rng.normal(size=(*lead, *s))) for s in shapes]
    like = [np.zeros(s) for s in shapes]
    packed = jax.vmap(packing.pack)(matrices) if lead else packing.pack(matrices)
    assert packed.shape == (*lead, *packing.shape(like))
    found = [packing.whole(x) for x in packing.pieces(packed, like)]
    jax.tree.map(np.testing.assert_array_equal, found, matrices)


def test_a_wide_matrix_is_cut_into_columns():
    """Rows of narrow matrices come one after another; a wide one's halves do."""
    narrow, wide = np.full((2, 3), 1), np.arange(12).reshape(2, 6)
    packed = packing.pack([narrow, wide])
    np.testing.assert_array_equal(packed[:2], narrow)
    np.testing.assert_array_equal(packed[2:4], wide[:, :3])
    np.testing.assert_array_equal(packed[4:], wide[:, 3:])
    piece = packing.pieces(packed, [narrow, wide])[1]
    np.testing.assert_array_equal(piece, [wide[:, :3], wide[:, 3:]])
