"""The first operation that isn't finite: found inside calls and loops, masks forgiven."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.replay import operations, origins


def find(function, *args):
    """The operation that a function's result comes from; its results are checked."""
    result, found = operations.evaluate(function, *args)
    for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(function(*args))):
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), rtol=1e-5)
    leaf = dict(is_leaf=lambda x: isinstance(x, origins.Operation))
    return origins.first(jax.tree.leaves(found, **leaf))


def line_of(function, text):
    """The number of the line of a function's source that has a text."""
    lines, start = inspect.getsourcelines(function)
    return start + next(i for i, line in enumerate(lines) if text in line)


def test_what_is_finite_has_none():
    assert find(lambda x: jnp.log(x), jnp.ones(3)) is None


def log_of_zero(x):
    y = x + 1
    z = jnp.log(x)
    return (y * z).sum()


def test_it_is_named_with_its_shapes_and_its_line():
    op = find(log_of_zero, jnp.zeros(3))
    assert (op.name, op.result) == ("log", "inf")
    assert op.inputs == op.outputs == ("float32[3]",)
    assert op.line == line_of(log_of_zero, "jnp.log")
    assert pathlib.Path(op.file).name == "test_operations.py"
    assert op.source == "z = jnp.log(x)" and op.function == "log_of_zero"
    assert op.place.endswith(f"test_operations.py:{op.line}")


def grow(x):
    def body(carry, y):
        carry = carry * y
        return carry, jnp.tanh(carry)

    return jax.lax.scan(body, x, jnp.float32([1, 1e20, 1e20, 2]))


@pytest.mark.parametrize("jit", [False, True])
def test_a_scan_is_gone_through_by_iteration(jit):
    op = find(jax.jit(grow) if jit else grow, jnp.float32(3.0))
    assert (op.name, op.iterations, op.result) == ("mul", ("3 of 4",), "inf")
    assert op.line == line_of(grow, "carry * y")


def test_a_scan_backwards_counts_its_iterations_from_the_front():
    def body(carry, y):
        return carry * y, carry

    backwards = functools.partial(
        jax.lax.scan, body, jnp.float32(3.0), jnp.float32([2, 1e20, 1e20]), reverse=True
    )
    assert find(backwards).iterations == ("2 of 3",)


def test_a_loop_is_gone_through_until_it_ends():
    op = find(
        lambda x: jax.lax.while_loop(
            lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * c[1]), (0, x)
        ),
        jnp.float32(1e5),
    )
    assert (op.name, op.iterations) == ("mul", ("3",))  # 1e10, 1e20, 1e40


def with_a_rule(function):
    """The function with a derivative of its own."""
    ruled = jax.custom_jvp(function)
    ruled.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))
    return ruled


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        lambda f: lambda x: jax.lax.cond(x[0] > 0, f, jnp.cos, x),
        with_a_rule,
    ],
)
def test_calls_are_entered_with_the_names_around_them(wrap):
    def inner(x):
        with jax.named_scope("inner"):
            return jnp.exp(x) - 1

    def outer(x):
        with jax.named_scope("outer"):
            return wrap(inner)(x)

    op = find(outer, jnp.float32([100.0, 1.0]))
    assert op.name == "exp"
    assert op.scope.startswith("outer") and op.scope.endswith("inner")


def test_gradients_are_gone_through_those_of_custom_rules_too():
    square_root = jax.grad(lambda x: jnp.sqrt(x).sum())
    assert find(square_root, jnp.zeros(2)).name == "div"

    @jax.custom_vjp
    def odd(x):
        return x

    odd.defvjp(lambda x: (x, x), lambda x, g: (g / (x - x),))
    assert find(jax.grad(lambda x: odd(x).sum()), jnp.ones(2)).name == "div"
    assert find(odd, jnp.ones(2)) is None


def test_what_a_mask_takes_away_is_no_origin():
    assert find(lambda x: jnp.where(x > 0, jnp.log(x), 0.0).sum(), jnp.zeros(2)) is None


def test_the_minus_infinity_of_a_mask_is_none_until_it_makes_a_nan():
    def attend(x):
        return jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))

    assert find(attend, jnp.float32([1, -1, 2])) is None
    op = find(attend, jnp.float32([-1, -1, -2]))
    assert (op.name, op.result, op.given) == ("sub", "nan", False)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_constant_that_is_not_finite_is_told_as_one():
    op = find(lambda x: x * 1e39, jnp.ones(2))
    assert (op.name, op.given) == ("mul", True)
    op = find(lambda x: jnp.exp(x) + x * 1e39, jnp.full(2, 100.0))
    assert (op.name, op.given) == ("exp", False)


def test_of_a_choice_the_one_that_was_taken_counts():
    """Both are infinite; the first is thrown away."""

    def choose(x):
        return jnp.where(x > 0, jnp.exp(x), jnp.log(x - x))

    assert find(choose, jnp.float32([100.0])).name == "exp"
    assert find(choose, jnp.float32([-100.0])).name == "log"


def test_numbers_that_pass_as_bits_keep_their_origin():
    """As the models' scans have them on a CPU."""

    def over(x):
        bits = jax.lax.bitcast_convert_type(jnp.exp(x), jnp.uint32)
        xs = jnp.stack([bits, bits])
        kept = jax.lax.scan(lambda c, b: (c, b), 0, xs)[1]
        return jax.lax.bitcast_convert_type(kept, jnp.float32).sum()

    assert find(over, jnp.float32([100.0])).name == "exp"
    assert find(over, jnp.float32([1.0])) is None


def test_of_several_the_first_is_named():
    op = find(lambda x: jnp.sqrt(-x).sum() + jnp.log(x - x).sum(), jnp.ones(2))
    assert op.name == "sqrt"


def test_bfloat16_overflows_where_float32_does_not():
    cast = find(lambda x: x.astype(jnp.bfloat16), jnp.float32([3.4e38]))
    assert cast.name == "convert_element_type"
    assert (cast.inputs, cast.outputs) == (("float32[1]",), ("bfloat16[1]",))
    assert find(lambda x: x * 1.0, jnp.float32([3.4e38])) is None


def test_keys_pass_through():
    def draw(key):
        keys = jax.random.split(key, 2)
        return jax.lax.scan(lambda c, k: (c, jax.random.normal(k)), 0.0, keys)[1]

    assert find(draw, jax.random.key(0)) is None
