"""The simulator finds the faults that it is there for: planted ones, beside none."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tests.kernels import simulator
from vit_ssl_jax.kernels import calls, placing

X = np.arange(8 * 128, dtype=np.float32).reshape(8, 128)


def run(kernel, interpret=simulator.SIMULATOR, **options):
    """`kernel` on X: a result of its shape."""
    out = jax.ShapeDtypeStruct(X.shape, X.dtype)
    call = pl.pallas_call(kernel, out_shape=out, interpret=interpret, **options)
    return np.asarray(call(X))


def place(rows):
    """Our own copying kernel, told to put parts of four rows at `rows`."""
    received = np.ones((len(rows), 4, 2), np.float32)
    moves = [(sender, 0, 4, row, 0) for sender, row in enumerate(rows)]
    arrays = [np.zeros((1, 16, 2), np.float32)]
    placed = placing.place(0, received, arrays, [moves], interpret=simulator.SIMULATOR)
    return np.asarray(placed[0][0, :, 0])


@pytest.mark.parametrize("rows, races", [((0, 4, 8, 12), 0), ((0, 3, 6, 9), 1)])
def test_copies_into_one_place_are_a_race(rows, races):
    assert place(rows).sum() == max(rows) + 4
    assert simulator.count() == (1, races)


def copy(x_ref, out_ref, there, semaphore, *, early):
    """X by the copying engine, read while it is under way or when it is there."""
    move = pltpu.make_async_copy(x_ref, there, semaphore)
    move.start()
    if not early:
        move.wait()
    out_ref[...] = there[...]
    if early:
        move.wait()


@pytest.mark.parametrize("early", [False, True])
def test_reading_what_is_being_copied_is_a_race(early):
    out = run(
        functools.partial(copy, early=early),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        scratch_shapes=[pltpu.VMEM(X.shape, X.dtype), pltpu.SemaphoreType.DMA],
    )
    assert np.all(np.isnan(out)) if early else np.array_equal(out, X)
    assert simulator.count() == (1, early)


@pytest.mark.parametrize("order", ["arbitrary", "parallel"])
def test_cores_that_write_the_same_are_a_race(order):
    """Steps of a grid in order are one core's, parallel ones are shared among two."""

    def kernel(x_ref, out_ref):
        out_ref[...] = x_ref[...]

    block = pl.BlockSpec(X.shape, lambda i: (0, 0))
    out = run(
        kernel,
        dataclasses.replace(simulator.SIMULATOR, num_cores_or_threads=2),
        grid=(2,),
        in_specs=[block],
        out_specs=block,
        compiler_params=pltpu.CompilerParams(dimension_semantics=(order,)),
    )
    np.testing.assert_array_equal(out, X)
    assert simulator.count() == (1, order == "parallel")


def test_a_test_fails_for_a_race_of_any_of_its_kernels():
    """jax itself knows of the last kernel only."""
    place((0, 3, 6, 9))
    place((0, 4, 8, 12))
    with pytest.raises(AssertionError, match="1 of 2 kernels had a race"):
        simulator.check()
    simulator.check()  # once told, it is over


@pytest.mark.parametrize("zeroed", [True, False])
def test_a_sum_that_nobody_set_to_zero_is_nan(zeroed):
    """As kernels sum up: over a grid's steps of four rows, in an output's block."""

    def kernel(x_ref, total_ref):
        if zeroed:
            calls.zero_at_start(total_ref)
        total_ref[...] += x_ref[...].sum(axis=0, keepdims=True)

    (total,) = calls.call(
        kernel,
        name="sum",
        grid=2,
        layer=jnp.zeros((), jnp.int32),
        inputs=[(X, calls.rows(4, 128))],
        outputs=[calls.total((1, 128))],
        interpret=simulator.SIMULATOR,
    )
    expected = X.sum(axis=0, keepdims=True)
    np.testing.assert_array_equal(total, expected if zeroed else np.nan * expected)


def test_reading_beyond_an_array_raises_and_the_next_kernel_runs():
    def kernel(x_ref, out_ref, *, start):
        out_ref[...] = x_ref[pl.ds(start + pl.program_id(0), 8)]

    grid = dict(grid=(1,))
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out-of-bounds read"):
        run(functools.partial(kernel, start=1), **grid)
    simulator.check()
    out = run(functools.partial(kernel, start=0), **grid)
    np.testing.assert_array_equal(out, X)
