"""FLOPs of a function: those of its matmuls and convolutions, read from its trace."""

import math

import jax
from jax.extend import core

# Primitives that run their one body once.
ENTERED = {"jit", "closed_call", "remat2", "custom_jvp_call", "custom_vjp_call"}


def count(function, *shapes):
    """FLOPs of `function(*shapes)`, two for a multiply and add: int.

    `shapes` are arrays or ShapeDtypeStructs, in trees. Counted is the arithmetic of
    matmuls and convolutions, of all devices together, as model FLOPs are by custom:
    norms, softmax and the like are left out, and a convolution's padding is work.
    A scan's body counts `length` times, of a conditional the most expensive branch.
    What is rematerialised counts each time it is computed. Raises ValueError for
    matmuls in a loop of unknown length, and in primitives that aren't known.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*shapes).jaxpr)


def _of_jaxpr(jaxpr):
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_matmul(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(body) for body in bodies(params)]
    if not any(inner):
        return 0
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "shard_map":  # its body sees one device's shapes
        axes = params.get("newly_manual_axes", params.get("manual_axes"))
        return math.prod(params["mesh"].shape[axis] for axis in axes) * sum(inner)
    if name in ENTERED:
        return sum(inner)
    if name == "while":
        raise ValueError("a while loop with matmuls has no known length: use a scan")
    raise ValueError(f"can't count the matmuls inside the primitive {name!r}")


def _of_matmul(equation):
    """FLOPs of a matmul: every output is a sum over the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation):
    """FLOPs of a convolution: every output sums over the window and input channels."""
    numbers = equation.params["dimension_numbers"]
    kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(kernel[i] for i in numbers.rhs_spec[1:])


def bodies(params):
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
