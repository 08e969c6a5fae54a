"""Parts of what devices sent, put where they belong by the chip's own copying engine."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

ROWS, LANES = 8, 128  # of a tile, which is copied whole


def fits(moves):
    """Whether the parts of `place` are whole tiles."""
    return all(
        not any(row % ROWS for row in (start, count, to)) and not column % LANES
        for _, start, count, to, column in moves
    )


def place(layer, received, arrays, moves, *, interpret=False):
    """Puts parts of `received [W R C]` into layer `layer` of `arrays [L r w]`, in place.

    `moves` has a list of parts for each array: `(sender, row, rows, row there, column
    there)`, all of C columns.
    """
    count = len(arrays)
    return pl.pallas_call(
        functools.partial(_place, moves=moves),
        name="place",
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(1,),
            in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * (1 + count),
            out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * count,
            scratch_shapes=[pltpu.SemaphoreType.DMA],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays],
        input_output_aliases={2 + i: i for i in range(count)},
        interpret=interpret,
    )(jnp.reshape(layer, 1), received, *arrays)


def _place(layer, received, *refs, moves):
    *refs, semaphore = refs
    columns = received.shape[-1]
    copies = [
        pltpu.make_async_copy(
            received.at[sender, pl.ds(start, rows)],
            array.at[layer[0], pl.ds(to, rows), pl.ds(column, columns)],
            semaphore,
        )
        for array, parts in zip(refs[len(moves) :], moves, strict=True)
        for sender, start, rows, to, column in parts
    ]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.wait()
