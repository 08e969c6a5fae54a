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
    """One parameter. `{i}` in `theirs` is the layer; ours has the layers in front."""

    theirs: str
    ours: str
    shape: tuple  # theirs, of one layer
    transform: Callable  # their array -> ours
    inverse: Callable
    depth: int | None  # layers stacked, None: not stacked

    @property
    def names(self):
        """Names of the parameter in their state_dict, one a layer."""
        if self.depth is None:
            return [self.theirs]
        return [self.theirs.format(i=i) for i in range(self.depth)]


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A constant in their state_dict that is no parameter of ours."""

    theirs: str
    value: np.ndarray

    @property
    def names(self):
        """The constant's one name in their state_dict, in a list as `Row.names`."""
        return [self.theirs]


def rearrange(theirs, split, order, ours):
    """Makes `transform, inverse`: `theirs` -> `split` -> axes in `order` -> `ours`."""
    middle, back = tuple(split[i] for i in order), np.argsort(order)

    def transform(x):
        return x.reshape(split).transpose(order).reshape(ours)

    def inverse(x):
        return x.reshape(middle).transpose(back).reshape(theirs)

    return transform, inverse


def row(theirs, ours, shape, depth, *, split=None, order=None, ours_shape=None):
    """A `Row`; without `split` the array is the same on both sides."""
    split = split or shape
    order = order or tuple(range(len(split)))
    ours_shape = ours_shape or tuple(split[i] for i in order)
    return Row(theirs, ours, shape, *rearrange(shape, split, order, ours_shape), depth)


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
    check_names([name for r in rows for name in r.names], state_dict)
    params = {}
    for r in rows:
        arrays = [np.asarray(state_dict[name]) for name in r.names]
        if isinstance(r, Fixed):
            check_constant(r, arrays[0])
            continue
        for name, array in zip(r.names, arrays):
            check_shape(name, array.shape, r.shape)
        ours = [r.transform(x) for x in arrays]
        params[r.ours] = np.array(ours[0] if r.depth is None else ours)
    return flax.traverse_util.unflatten_dict(params, sep="/")


def export_params(rows, params):
    """The state_dict of numpy arrays under their names; UserError where ours differ.

    Any tree with the shapes of the parameters will do: gradients, moments, a teacher.
    """
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    check_names([r.ours for r in rows if isinstance(r, Row)], flat)
    state_dict = {}
    for r in rows:
        if isinstance(r, Fixed):
            layers = [r.value]
        elif r.depth is None:
            layers = [r.inverse(np.asarray(flat[r.ours]))]
        else:
            layers = [r.inverse(x) for x in np.asarray(flat[r.ours])]
        state_dict.update((n, np.array(x)) for n, x in zip(r.names, layers))
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
    if not error <= ROUNDING:
        raise UserError(
            f"checkpoint: {fixed.theirs} is not this model's sine-cosine table (largest "
            f"difference {error:.2g}); mmpretrain's has rows and columns exchanged, "
            "big_vision's has other frequencies, and a trained table is "
            "config.vit.posemb='learned'"
        )
