"""What counts as the label of a record: one of its features, or a rule by name.

The rules are those of VTAB (Zhai et al., 2019), whose sets for counting, distance,
place and orientation don't come with labels of so few classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from vit_ssl_jax.errors import UserError

DEPTHS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)  # of CLEVR: edges of its classes
METRES = (-100.0, 8.0, 20.0, 999.0)  # of KITTI; the last class is "no vehicle"
NO_VEHICLE = 1000.0
VEHICLES = 3  # its types below: car, van, truck


@dataclasses.dataclass(frozen=True, eq=False)
class Label:
    """A way to label the records of a set.

    needs: names of its features that are read, each with those inside that matter.
    read: record -> the number of the class, or uint8 `[C]`, 1 at all that are right.
    class_names: one per class; () for records without a label.
    none: what `read` would give where there is no label.
    binary: whether pixels are 0 and 1, to be shown as black and white.
    """

    needs: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping], int | np.ndarray]
    class_names: tuple[str, ...]
    none: int | np.ndarray = -1
    binary: bool = False


UNLABELLED = Label(needs={}, read=lambda record: -1, class_names=())


def count_objects(record: Mapping) -> int:
    """Class of the number of CLEVR's objects, 3 to 10 an image: class 0 is three."""
    return len(record["objects"]["size"]) - 3


def find_nearest_object(record: Mapping) -> int:
    """Class of the depth of CLEVR's nearest object, by DEPTHS."""
    return _class_of(min(z for _, _, z in record["objects"]["pixel_coords"]), DEPTHS)


def find_nearest_vehicle(record: Mapping) -> int:
    """Class of the distance ahead of KITTI's nearest car, van or truck, by METRES."""
    kinds, places = record["objects"]["type"], record["objects"]["location"]
    ahead = [
        z for kind, (_, _, z) in zip(kinds, places, strict=True) if kind < VEHICLES
    ]
    return _class_of(min([*ahead, NO_VEHICLE]), METRES)


def _class_of(value: float, edges: tuple[float, ...]) -> int:
    """Number of the last edge that is less than `value`."""
    return int(np.searchsorted(edges, value)) - 1


def _ranges(edges: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges))


RULES = {
    "clevr_count": Label(
        needs={"objects": ("size",)},
        read=count_objects,
        class_names=tuple(f"{count} objects" for count in range(3, 11)),
    ),
    "clevr_distance": Label(
        needs={"objects": ("pixel_coords",)},
        read=find_nearest_object,
        class_names=_ranges(DEPTHS),
    ),
    "kitti_distance": Label(
        needs={"objects": ("location", "type")},
        read=find_nearest_vehicle,
        class_names=(*_ranges(METRES), "no vehicle"),
    ),
    "dsprites_location": Label(  # 32 places from left to right
        needs={"label_x_position": ()},
        read=lambda record: int(record["label_x_position"]) // 2,
        class_names=tuple(f"{x} and {x + 1} of 32" for x in range(0, 32, 2)),
        binary=True,
    ),
    "dsprites_orientation": Label(  # 40 angles, two or three a class
        needs={"label_orientation": ()},
        read=lambda record: 2 * int(record["label_orientation"]) // 5,
        class_names=tuple(f"turned by {i} sixteenths" for i in range(16)),
        binary=True,
    ),
}


def find_label(
    features: Mapping, label: str, where: str, count_classes: Callable[[str], int]
) -> Label:
    """The `Label` of records that have these features.

    features: of the set, by name, objects of `tfds.features`.
    label: a rule of RULES, or the name of a feature: a class, a sequence of classes,
        all of them right, or an integer. "": the class called "label", or else the
        first by name; where there is no class, records have no label.
    where: the set, for messages.
    count_classes: name of an integer feature -> the number of its classes.

    Raises UserError if there is no such feature, or it can't be a label.
    """
    import tensorflow_datasets as tfds  # here because it is slow to import

    if not label:
        label = choose(features, tfds.features.ClassLabel, "label")
        if not label:
            return UNLABELLED
    if label in RULES:
        _check_needs(features, label, where)
        return RULES[label]
    if label not in features:
        raise UserError(
            f"config.data.label: {where} has no feature {label!r}: it has "
            f"{_describe_all(features)}; rules are {', '.join(RULES)}."
        )
    feature = features[label]
    inner = getattr(feature, "feature", None)
    if isinstance(inner, tfds.features.ClassLabel):
        return _several_classes(label, tuple(inner.names))
    if isinstance(feature, tfds.features.ClassLabel):
        names = tuple(feature.names)
    elif feature.shape == () and np.issubdtype(feature.np_dtype, np.integer):
        names = tuple(str(i) for i in range(count_classes(label)))
    else:
        raise UserError(
            f"config.data.label: feature {label!r} of {where} is no class and no "
            f"integer. It has {_describe_all(features)}."
        )
    return Label({label: ()}, lambda record: int(record[label]), names)


def choose(features: Mapping, kind: type, usual: str) -> str:
    """Name of the feature of a kind: the usual one or else the first by name; "".

    The order in which features come from a set's file changes from process to process.
    """
    names = [key for key, feature in features.items() if isinstance(feature, kind)]
    return usual if usual in names else min(names, default="")


def _several_classes(key: str, names: tuple[str, ...]) -> Label:
    """The label of an image with any number of right classes, also none."""

    def read(record: Mapping) -> np.ndarray:
        right = np.zeros(len(names), np.uint8)
        right[np.asarray(record[key], np.int64)] = 1
        return right

    return Label({key: ()}, read, names, none=np.zeros(len(names), np.uint8))


def _check_needs(features: Mapping, rule: str, where: str) -> None:
    """Raises UserError if the records lack what a rule is about."""
    for key, inside in RULES[rule].needs.items():
        if not set(inside) <= set(_names_inside(features, key)) or key not in features:
            raise UserError(
                f"config.data.label: rule {rule!r} needs the feature "
                f"{_describe(key, inside)}, but {where} has {_describe_all(features)}."
            )


def _names_inside(features: Mapping, key: str) -> tuple[str, ...]:
    """Names within a sequence of several features; () for any other, or none."""
    inner = getattr(features[key], "feature", None) if key in features else None
    return tuple(sorted(inner)) if hasattr(inner, "keys") else ()


def _describe_all(features: Mapping) -> str:
    return ", ".join(
        _describe(key, _names_inside(features, key)) for key in sorted(features)
    )


def _describe(key: str, inside: tuple[str, ...]) -> str:
    return f"{key} ({', '.join(inside)})" if inside else key
