"""Where an array that isn't finite comes from: an operation, its shapes, its source."""

import dataclasses
import functools
import linecache
import pathlib
import sysconfig

import jax.numpy as jnp
import numpy as np

import vit_ssl_jax

PACKAGE = pathlib.Path(vit_ssl_jax.__file__).parent
HERE = pathlib.Path(__file__).parent
CONSTANT = "constant"  # where a literal, a constant or an argument isn't finite


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation whose result isn't finite though what goes in is."""

    order: int  # among all that were evaluated
    name: str  # of its primitive
    inputs: tuple[str, ...]  # as "bfloat16[8,64]"
    outputs: tuple[str, ...]
    result: str  # "nan", "inf" or "nan and inf"
    file: str  # of the line that asked for it; "": unknown
    line: int
    function: str
    scope: str  # names of modules around it
    iterations: tuple[str, ...]  # "3 of 12" of the scans around it, the outermost first
    given: bool  # whether a constant that isn't finite went in

    @property
    def source(self):
        """The text of its source line."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def place(self):
        """Its file, from the package on where it is in there, and line."""
        path = pathlib.Path(self.file)
        inside = path.is_relative_to(PACKAGE)
        return f"{path.relative_to(PACKAGE.parent) if inside else path}:{self.line}"


def first(origins):
    """The first of some origins: an `Operation`, or None.

    One that only a constant that isn't finite made is taken where there is no other.
    """
    found = [o for o in origins if isinstance(o, Operation)]
    return min(found, key=lambda o: (o.given, o.order), default=None)


def judge(eqn, given, results, **where):
    """The origins of an operation's results: None, CONSTANT or an `Operation` each.

    given: `[(array, origin)]` that went in. where: order, scope and iterations, as an
    `Operation` has them.

    It is this one where nothing that isn't finite went in, or constants did (a mask's
    -inf) and the result is nan.
    """
    return [origin_of(eqn, given, results, x, where) for x in results]


def origin_of(eqn, given, results, result, where):
    """The origin of one of the results, as in `judge`."""
    kind, felt = kind_of(result), given
    if is_bits(result):
        cast = eqn.primitive.name == "bitcast_convert_type"
        return first(origin for x, origin in given if cast or is_bits(x))
    if not kind:
        return None
    if eqn.primitive.name == "select_n":
        felt = [pair for pair, here in zip(given, chosen(*given)) if here]
    before = [origin for _, origin in felt if origin]
    real = [o for o in before if isinstance(o, Operation) and not o.given]
    if real:
        return first(real)
    fresh_nan = "nan" in kind and not any("nan" in kind_of(x) for x, _ in felt)
    if before and not fresh_nan:
        made = describe(eqn, given, results, kind)
        return first(before) or Operation(**made, **where, given=True)
    return Operation(**describe(eqn, given, results, kind), **where, given=False)


def chosen(which, *cases):
    """Of a choice's `[(array, origin)]` whether it gave numbers that aren't finite."""
    which = np.asarray(which[0])
    yield False
    for i, (case, origin) in enumerate(cases):
        yield bool(origin) and np.any((which == i) & ~np.isfinite(np.asarray(case)))


def describe(eqn, given, results, kind):
    """What an `Operation` says of its equation."""
    file, line, function = find_source(eqn.source_info.traceback)
    return dict(
        name=eqn.primitive.name,
        inputs=tuple(shape_of(x) for x, _ in given),
        outputs=tuple(shape_of(x) for x in results),
        result=kind,
        file=file,
        line=line,
        function=function,
    )


def shape_of(x):
    """An array's type and shape: "float32[2,3]"."""
    dtype, shape = (getattr(x, name, None) for name in ("dtype", "shape"))
    return f"{dtype or np.asarray(x).dtype}[{','.join(map(str, shape or ()))}]"


def kind_of(x):
    """What isn't finite in an array: "nan", "inf", "nan and inf", or ""."""
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        return ""
    x = np.asarray(x)
    if np.isfinite(x).all():
        return ""
    names = [("nan", np.isnan(x).any()), ("inf", np.isinf(x).any())]
    return " and ".join(name for name, there in names if there)


def is_bits(x):
    """Whether an array is of whole numbers, which may be a float's bits."""
    return jnp.issubdtype(getattr(x, "dtype", bool), jnp.integer)


def origin_of_given(x):
    """The origin of what is given: None where it is finite."""
    return CONSTANT if kind_of(x) else None


def origin_of_part(x, origin):
    """The origin of a part of what has one: None where it is finite."""
    return origin if kind_of(x) or is_bits(x) else None


def find_source(traceback):
    """Where an operation was asked for: `(file, line, function)`; ("", 0, ""): unknown.

    The innermost line of this package, or of a program outside installed ones.
    """
    for frame in traceback.frames if traceback is not None else ():
        path = pathlib.Path(frame.file_name)
        if is_users(path):
            return frame.file_name, frame.line_num, frame.function_name
    return "", 0, ""


@functools.cache
def is_users(path):
    """Whether a file is of this package but for the folder of this one, or a user's."""
    if path.is_relative_to(PACKAGE):
        return not path.is_relative_to(HERE)
    paths = sysconfig.get_paths()
    installed = (paths["stdlib"], paths["platstdlib"], paths["purelib"])
    return path.is_file() and not any(path.is_relative_to(p) for p in installed)
