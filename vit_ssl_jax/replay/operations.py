"""A function evaluated operation by operation, to find where numbers stop being finite.

Its jaxpr is walked on concrete arrays: into jitted, rematerialised and custom-gradient
calls, through scans and loops iteration by iteration, into the branch that is taken. An
array that isn't finite carries the operation it comes from, and an array that is finite
again (masked, say) carries none; so what is named is what the result came from.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from jax.extend import core

from vit_ssl_jax.replay.origins import (
    first,
    judge,
    origin_of_given,
    origin_of_part,
)

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # what calls name their function by
LEAVES = {"pallas_call", "shard_map"}  # evaluated as one operation


@dataclasses.dataclass
class Walk:
    """How far an evaluation is."""

    count: itertools.count
    scope: tuple[str, ...] = ()
    iterations: tuple[str, ...] = ()

    def inside(self, eqn, *iterations):
        """The same walk within an equation's function."""
        scope = (*self.scope, str(eqn.source_info.name_stack))
        return dataclasses.replace(
            self, scope=scope, iterations=(*self.iterations, *iterations)
        )


def evaluate(function, *args):
    """Evaluates `function(*args)`: `(result, origins)`, trees of the same structure.

    An origin is None where an array is finite, else the `origins.Operation` it comes
    from, or `origins.CONSTANT`.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    given = [(x, origin_of_given(x)) for x in jax.tree.leaves(args)]
    pairs = walk_closed(closed, given, Walk(itertools.count()))
    structure = jax.tree.structure(shapes)
    values, origins = ([pair[i] for pair in pairs] for i in range(2))
    return structure.unflatten(values), structure.unflatten(origins)


def walk_closed(closed, given, walk):
    """Evaluates a closed jaxpr on `[(array, origin)]`; returns the same of its results."""
    consts = [(x, origin_of_given(x)) for x in closed.consts]
    return walk_jaxpr(closed.jaxpr, consts, given, walk)


def walk_jaxpr(jaxpr, consts, given, walk):
    """As `walk_closed`; what is used for the last time is let go."""
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, given, strict=True))

    def read(atom):
        if isinstance(atom, core.Literal):
            return atom.val, origin_of_given(atom.val)
        return known[atom]

    last = {}
    for i, eqn in enumerate(jaxpr.eqns):
        last |= {v: i for v in eqn.invars if not isinstance(v, core.Literal)}
    kept = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for i, eqn in enumerate(jaxpr.eqns):
        pairs = step_into(eqn, [read(v) for v in eqn.invars], walk)
        known |= dict(zip(eqn.outvars, pairs, strict=True))
        done = [v for v in (*eqn.invars, *eqn.outvars) if last_use(v, last, i)]
        for v in set(done) - kept:
            known.pop(v, None)
    return [read(v) for v in jaxpr.outvars]


def last_use(v, last, i):
    """Whether nothing after equation `i` reads a variable."""
    return not isinstance(v, core.Literal) and last.get(v, i) <= i


def step_into(eqn, given, walk):
    """Evaluates an equation, the function in it by its parts."""
    name = eqn.primitive.name
    if name == "scan":
        return walk_scan(eqn, given, walk)
    if name == "while":
        return walk_while(eqn, given, walk)
    if name == "cond":
        index, *rest = given
        branch = eqn.params["branches"][int(index[0])]
        return walk_closed(branch, rest, walk.inside(eqn))
    inner = [eqn.params[key] for key in CALLS if key in eqn.params]
    if len(inner) == 1 and name not in LEAVES:
        if isinstance(inner[0], core.ClosedJaxpr):
            return walk_closed(inner[0], given, walk.inside(eqn))
        return walk_jaxpr(inner[0], [], given, walk.inside(eqn))
    results = bind(eqn, [x for x, _ in given])
    results = results if eqn.primitive.multiple_results else [results]
    scope = filter(None, [*walk.scope, str(eqn.source_info.name_stack)])
    where = dict(order=next(walk.count), scope="/".join(scope))
    origins = judge(eqn, given, results, **where, iterations=walk.iterations)
    return list(zip(results, origins, strict=True))


def bind(eqn, values):
    """What an equation's operation makes of arrays."""
    made = eqn.primitive.get_bind_params(eqn.params)
    subfuns, params = made if isinstance(made, tuple) else ((), made)
    return eqn.primitive.bind(*subfuns, *values, **params)


def walk_scan(eqn, given, walk):
    """Evaluates a scan, one iteration after the other."""
    p = eqn.params
    consts, carry = p["num_consts"], p["num_consts"] + p["num_carry"]
    state, xs = given[consts:carry], given[carry:]
    order = range(p["length"])
    rows = []
    for i in reversed(order) if p["reverse"] else order:
        inside = walk.inside(eqn, f"{i + 1} of {p['length']}")
        row = [(x[i], origin_of_part(x[i], origin)) for x, origin in xs]
        out = walk_closed(p["jaxpr"], [*given[:consts], *state, *row], inside)
        state, made = out[: p["num_carry"]], out[p["num_carry"] :]
        rows.append(made)
    rows = rows[::-1] if p["reverse"] else rows
    if not rows:
        shapes = [v.aval for v in eqn.outvars[p["num_carry"] :]]
        return [*state, *((jnp.zeros(a.shape, a.dtype), None) for a in shapes)]
    return [*state, *map(stacked, zip(*rows))]


def stacked(pairs):
    """What the iterations of a scan gave for one of its results."""
    values, origins = zip(*pairs)
    found = first(origins) or next((o for o in origins if o), None)
    return jnp.stack(values), found


def walk_while(eqn, given, walk):
    """Evaluates a loop for as long as its condition holds."""
    p = eqn.params
    cond, body = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    state = given[body:]
    for i in itertools.count(1):
        inside = walk.inside(eqn, f"{i}")
        ((more, _),) = walk_closed(p["cond_jaxpr"], [*given[:cond], *state], inside)
        if not more:
            return state
        state = walk_closed(p["body_jaxpr"], [*given[cond:body], *state], inside)
