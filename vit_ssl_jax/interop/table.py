"""Tables of names, read in both directions: their state_dict <-> our parameters.

A state_dict is `{name: numpy array}`; our parameters are a tree of dicts whose paths
are written "encoder/patch/kernel". Both directions read the same rows, and a row's
inverse is made from its transform, so they can't drift apart.
"""

import dataclasses
from collections.abc import Callable

import flax
import numpy as np

from vit_ssl_jax.errors import UserError

ROUNDING = 1e-6  # largest difference between two float32 sine-cosine tables


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter. `{i}` in `theirs` is the layer; ours has the layers in front.

    Theirs may lie in parts, one behind the other on the first axis; a part that has no
    name, None, is zero there: they have none.
    """

    parts: tuple  # names, or None
    ours: str
    shape: tuple  # of one part, of one layer
    transform: Callable  # their array -> ours
    inverse: Callable
    depth: int | None  # layers stacked, None: not stacked

    @property
    def names(self):
        """Names of the parameter in their state_dict, layer by layer."""
        return [name for layer in self.layers for name in layer if name]

    @property
    def layers(self):
        """Names of the parts of every layer, a list of tuples."""
        if self.depth is None:
            return [self.parts]
        layers = range(self.depth)
        return [tuple(p and p.format(i=i) for p in self.parts) for i in layers]

    def read(self, state_dict):
        """Our array from theirs; raises UserError for another shape."""
        found = []
        for names in self.layers:
            arrays = [
                np.asarray(state_dict[n]) if n else np.zeros(self.shape, np.float32)
                for n in names
            ]
            for name, array in zip(names, arrays):
                check_shape(name, array.shape, self.shape)
            whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            found.append(self.transform(whole))
        return np.array(found[0] if self.depth is None else found)

    def write(self, array):
        """Their arrays by name from ours."""
        array, written = np.asarray(array), {}
        for names, layer in zip(self.layers, [array] if self.depth is None else array):
            parts = np.split(self.inverse(layer), len(names))
            written.update(
                (n, np.array(x, order="C")) for n, x in zip(names, parts) if n
            )
        return written

    def renamed(self, rename):
        """The same row with `rename` applied to their names."""
        parts = tuple(name and rename(name) for name in self.parts)
        return dataclasses.replace(self, parts=parts)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A constant in their state_dict that is no parameter of ours."""

    theirs: str
    value: np.ndarray
    rounding: float = ROUNDING  # largest difference that is none

    @property
    def names(self):
        """The constant's one name in their state_dict, in a list as `Row.names`."""
        return [self.theirs]

    def renamed(self, rename):
        """The same constant with `rename` applied to its name."""
        return dataclasses.replace(self, theirs=rename(self.theirs))


@dataclasses.dataclass(frozen=True)
class Unused:
    """An array of theirs that takes part in nothing here, and may be missing.

    An import leaves it out; an export writes zeros, so that a strict load finds it.
    """

    theirs: str
    shape: tuple

    @property
    def names(self):
        """Its name in their state_dict, in a list as `Row.names`."""
        return [self.theirs]

    def renamed(self, rename):
        """The same array with `rename` applied to its name."""
        return dataclasses.replace(self, theirs=rename(self.theirs))


def rearrange(theirs, split, order, ours):
    """Makes `transform, inverse`: `theirs` -> `split` -> axes in `order` -> `ours`."""
    middle, back = tuple(split[i] for i in order), np.argsort(order)

    def transform(x):
        return x.reshape(split).transpose(order).reshape(ours)

    def inverse(x):
        return x.reshape(middle).transpose(back).reshape(theirs)

    return transform, inverse


def row(theirs, ours, shape, depth, *, split=None, order=None, ours_shape=None):
    """A `Row`; without `split` the array is the same on both sides.

    `theirs` is a name, or a tuple of those of the parts; `shape` is that of all parts.
    """
    parts = theirs if isinstance(theirs, tuple) else (theirs,)
    split = split or shape
    order = order or tuple(range(len(split)))
    ours_shape = ours_shape or tuple(split[i] for i in order)
    both = rearrange(shape, split, order, ours_shape)
    part = (shape[0] // len(parts), *shape[1:])
    return Row(parts, ours, part, *both, depth)


def norm_rows(theirs, ours, width, depth):
    """LayerNorm: `weight, bias [D]` <-> `scale, bias [D]`."""
    return [
        row(f"{theirs}.weight", f"{ours}/scale", (width,), depth),
        row(f"{theirs}.bias", f"{ours}/bias", (width,), depth),
    ]


def dense_rows(theirs, ours, inputs, outputs, depth):
    """Dense: `weight [O I], bias [O]` <-> `kernel [I O], bias [O]`."""
    weight = f"{theirs}.weight", f"{ours}/kernel"
    return [
        row(*weight, (outputs, inputs), depth, order=(1, 0)),
        row(f"{theirs}.bias", f"{ours}/bias", (outputs,), depth),
    ]


def import_params(rows, state_dict):
    """Our tree of numpy arrays. Raises UserError where names, shapes, constants differ."""
    unused = {name for r in rows if isinstance(r, Unused) for name in r.names}
    needed = [name for r in rows for name in r.names if name not in unused]
    check_names(needed, [name for name in state_dict if name not in unused])
    params = {}
    for r in rows:
        if isinstance(r, Fixed):
            check_constant(r, np.asarray(state_dict[r.theirs]))
        elif isinstance(r, Row):
            params[r.ours] = r.read(state_dict)
    return flax.traverse_util.unflatten_dict(params, sep="/")


def export_params(rows, params):
    """The state_dict of numpy arrays under their names; UserError where ours differ.

    Any tree with the shapes of the parameters will do: gradients, moments, a teacher.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    check_names([r.ours for r in rows if isinstance(r, Row)], flat)
    state_dict = {}
    for r in rows:
        if isinstance(r, Row):
            state_dict.update(r.write(flat[r.ours]))
        elif isinstance(r, Fixed):
            state_dict[r.theirs] = np.array(r.value)
        else:
            state_dict[r.theirs] = np.zeros(r.shape, np.float32)
    return state_dict


def check_names(expected, given):
    """Raises UserError with every missing (-) and unexpected (+) name."""
    lines = [f" - {name}" for name in sorted(set(expected) - set(given))]
    lines += [f" + {name}" for name in sorted(set(given) - set(expected))]
    if lines:
        raise UserError(
            "checkpoint: its names don't fit the model (- is missing, + is unexpected); "
            "check variant, depth, pooling and class token:\n" + "\n".join(lines)
        )


def check_shape(name, shape, expected):
    """Raises UserError unless the shapes are equal."""
    if tuple(shape) != tuple(expected):
        raise UserError(
            f"checkpoint: {name} has shape {tuple(shape)}, the model needs "
            f"{tuple(expected)}; check variant, patch and image size"
        )


def check_constant(fixed, array):
    """Raises UserError unless their constant is ours up to rounding."""
    check_shape(fixed.theirs, array.shape, fixed.value.shape)
    error = np.abs(array - fixed.value).max()
    if not error <= fixed.rounding:
        raise UserError(
            f"checkpoint: {fixed.theirs} is not this model's sine-cosine table (largest "
            f"difference {error:.2g}); mmpretrain's has rows and columns exchanged, "
            "big_vision's has other frequencies, and a trained table is "
            "config.vit.posemb='learned'"
        )
