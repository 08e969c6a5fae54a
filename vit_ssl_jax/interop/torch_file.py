"""Reads what `torch.save` wrote, without torch, and without running any code of it.

A file is a zip of one pickle, in which tensors are told by their storage, and of the
storages' bytes. The pickle may name few things only: tensors become numpy arrays, what
belongs to a training loop (`args`, callbacks) an empty `Nothing`, all else is an error.
"""

import collections
import io
import math
import pickle
import zipfile

import ml_dtypes
import numpy as np

from vit_ssl_jax.errors import UserError

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Packages whose objects lie beside the weights in public checkpoints.
BESIDE = {"argparse", "collections", "fvcore", "lightning", "lightning_fabric", "mmcv"}
BESIDE |= {"mmengine", "numpy", "omegaconf", "pathlib", "pytorch_lightning", "timm"}
BESIDE |= {"torch", "typing", "yacs"}
# Of torch and numpy, what neither imports nor runs what a pickle hands to it.
PLAIN = {"set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "str"}


class Nothing:
    """Stands for an object that isn't read; takes whatever a pickle does to it."""

    def __init__(self, *args, **kwargs):
        del args, kwargs

    def __setstate__(self, state):
        del state

    def __setitem__(self, key, value):
        del key, value

    def append(self, item):
        """Takes an item of a list."""
        del item

    def extend(self, items):
        """Takes items of a list."""
        del items

    def add(self, item):
        """Takes an item of a set."""
        del item


class Reader(pickle.Unpickler):
    """Unpickles `data.pkl`; `archive` opens the storages by their key."""

    def __init__(self, file, storage):
        super().__init__(file)
        self._storage = storage

    def persistent_load(self, pid):
        """A storage: `("storage", type, key, device, length)` -> its array."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise UserError(f"it holds a {kind} of {dtype}, which is no tensor")
        return self._storage(key, dtype)

    def find_class(self, module, name):
        """What a name in the pickle stands for; UserError for what isn't known."""
        if module in ("torch", "torch.storage") and name in STORAGES:
            return np.dtype(STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module in ("builtins", "__builtin__") and name in PLAIN:
            return {"set": set, "frozenset": frozenset, "list": list, "dict": dict}.get(
                name, Nothing
            )
        if (module, name) == ("_codecs", "encode"):
            return Nothing
        if module.partition(".")[0] in BESIDE:
            return Nothing
        raise UserError(
            f"it wants to run {module}.{name}, so it may do anything to this machine; "
            "it is refused. Ask whoever made it for a .safetensors file"
        )


def rebuild(storage, offset, size, stride, *_):
    """A tensor from its storage, as a numpy array of its own."""
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= len(storage)):
        raise UserError("a tensor reaches beyond its storage")
    steps = [s * storage.itemsize for s in stride]
    start = storage[offset:] if math.prod(size) else storage[:0]
    return np.lib.stride_tricks.as_strided(start, size, steps).copy()


def read(path):
    """What was saved, tensors as numpy arrays. Raises UserError, without the path."""
    with zipfile.ZipFile(path) as archive:
        return read_zip(archive)


def read_zip(archive):
    """What was saved in an open archive."""
    names = archive.namelist()
    (pickled,) = [n for n in names if n.endswith("/data.pkl") or n == "data.pkl"][
        :1
    ] or [None]
    if pickled is None:
        raise UserError("it is a zip archive, but none that torch.save wrote")
    root = pickled[: -len("data.pkl")]
    order = "<"
    if root + "byteorder" in names and archive.read(root + "byteorder") == b"big":
        order = ">"
    storages = {}

    def storage(key, dtype):
        if key not in storages:
            raw = archive.read(f"{root}data/{key}")
            storages[key] = np.frombuffer(raw, dtype.newbyteorder(order))
        return storages[key]

    try:
        return Reader(io.BytesIO(archive.read(pickled)), storage).load()
    except UserError:
        raise
    except Exception as error:  # a pickle is a program, and this one is broken
        raise UserError(f"it is damaged ({type(error).__name__}: {error})") from error
