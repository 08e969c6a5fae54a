"""Data given from Python, where a config has a name: arrays, data sets, sources."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from vit_ssl_jax.data import decoding, sources
from vit_ssl_jax.data.source import Source, cut, without_labels
from vit_ssl_jax.errors import UserError

NAME = "given"  # of the set, in `config.data.name`
MOST_CLASSES = 10_000_000  # a label beyond is something else


class Indexed(Protocol):
    """Examples by number: `(image, label)`, `{image, label}`, or an image alone.

    image: uint8 `[h w 3]`, an image file's bytes, or a PIL image of any mode.
    label: an int; -1, None or left out where there is none.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Any: ...


Data = Source | np.ndarray | Mapping[str, Any] | Indexed


def make_opener(
    data: Data, num_classes: int, alpha: str = "white"
) -> Callable[..., Source]:
    """Makes a `sources.open_source` that knows one set more, called "given".

    data: images uint8 `[n h w 3]`, `{image: those, label: int [n]}`, an `Indexed`, a
        `Source`, or `{split: any of these}`; "train" is what has no split.
    num_classes: of an `Indexed` that doesn't tell (`class_names` or `classes`).
    alpha: what lies behind transparent images, "white" or "black".

    Raises UserError for data of another form.
    """
    alone = not isinstance(data, Mapping) or "image" in data
    parts = {"train": data} if alone else data
    splits = {
        key: dataclasses.replace(to_source(part, key, num_classes, alpha), alpha=alpha)
        for key, part in parts.items()
    }
    # Splits of one set have the same classes, seen or not.
    names = max((s.class_names for s in splits.values()), key=len, default=())
    splits = {
        key: dataclasses.replace(s, class_names=names) if s.class_names else s
        for key, s in splits.items()
    }

    def open_whole(split: str) -> Source:
        if split not in splits:
            raise UserError(
                f"the data given has no split {split!r}, it has "
                f"{', '.join(map(repr, splits)) or 'none'}; give {{'train': ..., "
                "'test': ...}, each an array, {'image': ..., 'label': ...} or a data set"
            )
        return splits[split]

    def open_source(name, directory, split, *, labels=True, label="", **others):
        if name != NAME:
            kinds = dict(labels=labels, label=label, **others)
            return sources.open_source(name, directory, split, **kinds)
        if label:
            raise UserError(
                f"config.data.label: {label!r} chooses among the labels of a prepared "
                "set, but data given has one at most; set label=''"
            )
        source = cut(split, open_whole)
        return source if labels else without_labels(source)

    return open_source


def to_source(data: Any, split: str, num_classes: int, alpha: str = "white") -> Source:
    """One split as a source; raises UserError where it can't be one."""
    if isinstance(data, Source):
        return data
    name = f"the data given ({split!r})"
    if hasattr(data, "__array__"):
        return _from_arrays({"image": data}, name)
    if isinstance(data, Mapping):
        return _from_arrays(data, name)
    indexed = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if indexed and not isinstance(data, str | bytes):
        return _from_items(data, name, num_classes, alpha)
    raise UserError(
        f"{name} is a {type(data).__name__}; give uint8 images [n h w 3], {{'image': "
        "those, 'label': int [n]}, or a data set with a length and examples by number"
    )


def _from_arrays(data: Mapping, name: str) -> Source:
    """A source of `{image [n h w 3], label [n]}`; without labels all are -1."""
    if "image" not in data or set(data) - {"image", "label"}:
        raise UserError(
            f"{name} has the keys {', '.join(map(str, data))}; give image [n h w 3], "
            "and label [n] where there are labels"
        )
    try:
        images = np.asarray(data["image"])
    except ValueError as error:
        raise UserError(
            f"the images of {name} are no array ({error}); give images of several sizes "
            "as a list of (image, label)"
        ) from error
    _check_pixels(images, name, "n, height, width, 3")
    labels = data.get("label")
    labels = np.full(len(images), -1) if labels is None else np.asarray(labels)
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (len(images),) or not whole or not _are_classes(labels):
        kind = f"{labels.dtype} {list(labels.shape)}"
        if whole and labels.size:
            kind += f" from {labels.min()} to {labels.max()}"
        raise UserError(
            f"the labels of {name} are {kind}; give an int for each of the "
            f"{len(images)} images: [{len(images)}], 0 to the number of classes less "
            "one, or -1 for none"
        )
    return Source(
        name=name,
        length=len(images),
        read=lambda i: (images[i], int(labels[i])),
        where=lambda i: f"image {i} of {name}",
        class_names=_number(labels.max() + 1),
    )


def _from_items(data: Indexed, name: str, num_classes: int, alpha: str) -> Source:
    """A source of examples by number; the first tells whether there are labels."""
    if not len(data):
        raise UserError(f"{name} is empty")

    def read(i: int) -> tuple[bytes | np.ndarray, int]:
        where, item = f"image {i} of {name}", data[int(i)]
        if isinstance(item, Mapping):
            if "image" not in item:
                raise UserError(f"{where} has no 'image', only {', '.join(item)}")
            item = item["image"], item.get("label", -1)
        pair = item if isinstance(item, tuple | list) else (item, -1)
        if len(pair) != 2:
            raise UserError(
                f"{where} comes as {len(pair)} values; give (image, label), "
                "{'image': ..., 'label': ...} or an image alone"
            )
        image, label = pair
        label = -1 if label is None else label
        if isinstance(image, Image.Image):
            image = decoding.from_pillow(ImageOps.exif_transpose(image), alpha)
        if not isinstance(image, bytes):
            image = np.asarray(image)
            _check_pixels(image, where, "height, width, 3")
        whole = np.ndim(label) == 0 and np.issubdtype(
            np.asarray(label).dtype, np.integer
        )
        if not whole or not -1 <= label < max(count, 1):
            raise UserError(
                f"{where} has the label {label!r}; it must be an int from 0 to "
                f"{count - 1}, or -1 for none (config.data.num_classes is the number "
                "of classes, unless the data set tells its class_names)"
            )
        return image, int(label)

    told = getattr(data, "class_names", None) or getattr(data, "classes", None)
    count = len(told or ()) or num_classes
    labelled = read(0)[1] >= 0
    return Source(
        name=name,
        length=len(data),
        read=read,
        where=lambda i: f"image {i} of {name}",
        class_names=(tuple(told or _number(count)) if labelled else ()),
        notes=() if labelled else _other_labels(data[0], name),
    )


def _other_labels(item: Any, name: str) -> tuple[str, ...]:
    """A line where an example has labels by other names than "label"."""
    keys = item if isinstance(item, Mapping) and "label" not in item else ()
    near = [str(key) for key in keys if "label" in str(key) or str(key) == "target"]
    if not near:
        return ()
    text = (
        f"labels are off: examples of {name} have {', '.join(near)}, but no 'label'; "
        f"give {{'image': x['image'], 'label': x[{near[0]!r}]}} to learn with labels"
    )
    return (text,)


def _are_classes(labels: np.ndarray) -> bool:
    return -1 <= labels.min() and labels.max() < MOST_CLASSES


def _number(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))


def _check_pixels(image: np.ndarray, name: str, wanted: str) -> None:
    """Raises UserError unless these are bytes of the shape `wanted`."""
    kept = image.ndim == wanted.count(",") + 1 and image.shape[-1] == 3
    if kept and image.dtype == np.uint8 and image.size:
        return
    hint = ""
    if not image.size:
        hint = "; there are none"
    elif np.issubdtype(image.dtype, np.floating):
        hint = "; from floats in [0, 1]: (255 * x).round().astype('uint8')"
    elif image.ndim == wanted.count(",") + 1 and image.shape[-1] == 1:
        hint = "; from grey: np.repeat(x, 3, axis=-1)"
    elif image.ndim == wanted.count(",") + 1 and image.shape[-1] == 4:
        hint = "; without alpha: x[..., :3]"
    elif image.ndim == wanted.count(",") + 1 and image.shape[-3] == 3:
        hint = "; with channels last: np.moveaxis(x, -3, -1)"
    elif image.ndim == wanted.count(","):
        hint = "; from grey: np.repeat(x[..., None], 3, axis=-1)"
    raise UserError(
        f"{name} is {image.dtype} {list(image.shape)}; images are uint8 [{wanted}], "
        f"RGB in 0..255{hint}"
    )
