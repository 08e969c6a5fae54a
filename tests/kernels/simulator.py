"""The TPU simulator that kernel tests run under besides the plain interpreter.

It gives NaN for memory that nobody has written, raises on reads beyond an array, and
knows of every access whether it comes in order with those that it conflicts with. That it
does is tested in test_simulator.py.
"""

import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as simulated
from jax.experimental.pallas import tpu as pltpu

records = {}  # what was noted of each kernel's accesses, by the note's address


def keep_record(*arguments):
    """Called at every grid point, because jax itself keeps the last kernel's note only.

    jax 0.9.2 gives the point and the core; later ones a token before them, to return.
    """
    records[id(simulated.races)] = simulated.races
    return arguments[0] if len(arguments) > 2 else ()


# Copies under way are told apart by random numbers below the clocks' size: of jax's own
# choice, twice the cores, those of one core all have the same, and never race.
SIMULATOR = pltpu.InterpretParams(
    detect_races=True,
    uninitialized_memory="nan",
    out_of_bounds_reads="raise",
    vector_clock_size=1024,
    grid_point_recorder=keep_record,
)


def count():
    """How many kernels ran since it was last called, and how many of them had a race."""
    found = [record.races_found for record in records.values()]
    records.clear()
    pltpu.reset_tpu_interpret_mode_state()  # for the next kernel if the last one raised
    return len(found), sum(found)


def check():
    """Raises AssertionError if a kernel had a race since the last `count` or `check`."""
    kernels, races = count()
    assert not races, (
        f"{races} of {kernels} kernels had a race: see RACE DETECTED above"
    )


@pytest.fixture(
    scope="module",
    params=[True, pytest.param(SIMULATOR, marks=pytest.mark.slow)],
    ids=["interpreter", "simulator"],
)
def interpret(request):
    """How kernels run: a `Style.interpret`."""
    return request.param


@pytest.fixture(autouse=True)
def no_race():
    """After every test: no kernel of it, or of what it was given, had a race."""
    yield
    check()
