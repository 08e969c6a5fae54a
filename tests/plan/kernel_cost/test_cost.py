"""Costs of kernels of which the count is known, compiled for a TPU that isn't here."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import topologies
from vit_ssl_jax.plan.kernel_cost import cost

F32, BF16 = jnp.float32, jnp.bfloat16
CHIP = topologies.CHIPS["v5e"]


@pytest.fixture(scope="module")
def price(tmp_path_factory):
    """`function, shapes -> Cost` of the one kernel in it, on a v5e."""
    pytest.importorskip("libtpu")
    devices, chip = topologies.get_devices("v5e:1x1", say=lambda text: None)
    sharding = jax.sharding.SingleDeviceSharding(devices[0])

    def estimate(function, *shapes, log=None):
        shapes = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
        with jax.default_matmul_precision(None):
            text = jax.jit(function).lower(*shapes).compile().as_text()
        (found,) = cost.estimate(text, chip, log).values()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield estimate


def iterate(times, steps, unrolled=False):
    """A kernel that takes so many roots of each of so many blocks of 256 x 128."""

    def kernel(x, out):
        body = lambda i, a: jnp.sqrt(a + 0.5)
        out[...] = jax.lax.fori_loop(0, times, body, x[...], unroll=unrolled)

    block = pl.BlockSpec((256, 128), lambda i: (i, 0))
    shape = ((256 * steps, 128), F32)
    call = pl.pallas_call(
        kernel,
        grid=(steps,),
        in_specs=[block],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(*shape),
        name="iterate",
    )
    return call, shape


def multiply(x, y, rows=512, columns=512, inner=512):
    """A matmul that adds up over the last axis of its grid."""

    def kernel(x, y, out, total):
        @pl.when(pl.program_id(2) == 0)
        def _():
            total[...] = jnp.zeros_like(total)

        total[...] += jnp.dot(x[...], y[...], preferred_element_type=F32)

        @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
        def _():
            out[...] = total[...].astype(BF16)

    return pl.pallas_call(
        kernel,
        grid=(len(x) // rows, y.shape[1] // columns, len(y) // inner),
        in_specs=[
            pl.BlockSpec((rows, inner), lambda i, j, k: (i, k)),
            pl.BlockSpec((inner, columns), lambda i, j, k: (k, j)),
        ],
        out_specs=pl.BlockSpec((rows, columns), lambda i, j, k: (i, j)),
        out_shape=jax.ShapeDtypeStruct((len(x), y.shape[1]), BF16),
        scratch_shapes=[pltpu.VMEM((rows, columns), F32)],
        name="multiply",
    )(x, y)


@pytest.mark.slow
def test_cost_grows_with_a_loop_and_with_the_grid(price):
    """Every further round, and every further step, costs the same."""
    few, more, most = (price(*iterate(times, 4)).bundles for times in (5, 10, 20))
    assert most - more == 2 * (more - few) > 0
    four, eight, sixteen = (price(*iterate(10, steps)) for steps in (4, 8, 16))
    assert [c.grid_steps for c in (four, eight, sixteen)] == [4, 8, 16]
    assert sixteen.bundles - eight.bundles == 2 * (eight.bundles - four.bundles)
    a_round = (more - few) / (5 * 4)
    assert eight.bundles - four.bundles > 4 * 10 * a_round


@pytest.mark.slow
def test_unrolled_twin_costs_about_the_same(price):
    """A loop's body times its rounds is what the same work costs without a loop."""
    loop, flat = price(*iterate(12, 4)), price(*iterate(12, 4, unrolled=True))
    assert flat.bundles == pytest.approx(loop.bundles, rel=0.25)
    assert flat.bytes == loop.bytes == 2 * 4 * 256 * 128 * 4


@pytest.mark.slow
def test_copy_is_bound_by_its_bytes(price):
    """In and out once, at the rate of HBM."""
    call, shape = iterate(0, 16)
    cost = price(call, shape)
    assert cost.bytes == 2 * 16 * 256 * 128 * 4
    assert cost.cycles == -(-cost.bytes * CHIP.hertz // CHIP.hbm_bytes_per_second)
    assert cost.cycles > cost.bundles
    assert cost.units["MXU"] == 0


@pytest.mark.slow
def test_matmul_is_near_the_matrix_units_minimum(price):
    """Never below 2 M K N over the peak; blocks are fetched again when they change."""
    m, k, n = 2048, 1024, 1024
    cost = price(multiply, ((m, k), BF16), ((k, n), BF16))
    assert cost.name == "multiply"
    assert cost.matmul_flops == 2 * m * k * n
    least = 2 * m * k * n / CHIP.peak_flops_per_cycle
    assert least <= cost.cycles < 1.25 * least
    assert cost.grid_steps == 4 * 2 * 2
    # x anew for both column blocks, y for all four row blocks, the result once.
    assert cost.bytes == 2 * (2 * m * k + 4 * k * n + m * n)
    assert 0.5 < cost.units["MXU"] <= 1


@pytest.mark.slow
def test_unchanged_block_is_fetched_once(price):
    """A bias that every step reads moves once."""

    def kernel(x, bias, out):
        out[...] = x[...] + bias[...]

    block = pl.BlockSpec((256, 128), lambda i: (i, 0))
    call = pl.pallas_call(
        kernel,
        grid=(8,),
        in_specs=[block, pl.BlockSpec((256, 128), lambda i: (0, 0))],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct((2048, 128), F32),
    )
    cost = price(call, ((2048, 128), F32), ((256, 128), F32))
    assert cost.bytes == (2 * 8 + 1) * 256 * 128 * 4


@pytest.mark.slow
def test_what_is_in_vmem_moves_no_bytes(price):
    """An operand that the program holds on the chip isn't fetched from HBM."""
    call, shape = iterate(3, 4)
    outside = price(call, shape)
    inside = price(
        lambda x: call(pltpu.with_memory_space_constraint(x + 1, pltpu.VMEM)), shape
    )
    assert inside.bytes == outside.bytes / 2


@pytest.mark.slow
def test_declared_costs_change_nothing_and_figures_are_remembered(price):
    """The kernel's own claim isn't read; the second time nothing is compiled."""

    def make(claim):
        def kernel(x, out):
            out[...] = x[...] * 3

        estimate = pl.CostEstimate(flops=claim, bytes_accessed=claim, transcendentals=0)
        shape = jax.ShapeDtypeStruct((256, 128), F32)
        return pl.pallas_call(kernel, out_shape=shape, cost_estimate=estimate)

    said = []
    shape = ((256, 128), F32)
    costs = [price(make(n), shape, log=said.append) for n in (1, 10**12, 1)]
    assert costs[0].cycles == costs[1].cycles == costs[2].cycles
    assert costs[0] == costs[2]
    assert 1 <= len(said) <= 2


@pytest.mark.slow
def test_length_that_depends_on_data_is_an_error(price):
    """It isn't guessed."""

    def kernel(x, out):
        rounds = x[0, 0].astype(jnp.int32)
        out[...] = jax.lax.fori_loop(0, rounds, lambda i, a: a * 2, x[...])

    shape = ((256, 128), F32)
    call = pl.pallas_call(
        kernel, out_shape=jax.ShapeDtypeStruct(*shape), name="endless"
    )
    with pytest.raises(UserError, match="kernel endless: a branch depends on data"):
        price(call, shape)


def test_utilization_weighs_bundles_by_their_executions():
    """Slots used over slots there were; fills and spills are counted apart."""
    text = (
        "== CAPACTIY:\nMXU, VALU, VLOAD, VLOAD:FILL, SALU\n 4 4 3 3 2\n"
        "== UTILIZATION:\n4 0 0 0 1\n2 4 3 1 0\n"
    )
    shares, spills = cost.utilization(text, jnp.array([1, 9]))
    assert shares == {"MXU": 0.55, "VALU": 0.9, "VLOAD": 0.9, "SALU": 0.05}
    assert spills == 9
    with pytest.raises(UserError, match="2 bundles' utilization of 3"):
        cost.utilization(text, jnp.array([1, 9, 9]))


def test_results_that_share_an_operand_s_memory_are_found():
    one = "x, output_to_operand_aliasing={{}: (3, {})}, metadata={}"
    two = "output_to_operand_aliasing={{0}: (2, {}), {2}: (5, {})}, calls=%x"
    aliases = [
        cost.find_aliases(types.SimpleNamespace(attributes=text))
        for text in (one, two, "metadata={}")
    ]
    assert aliases == [[[3, 0]], [[2, 0], [5, 2]], []]
