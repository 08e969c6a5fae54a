"""Opens files of weights of any kind: what they hold as numpy arrays by name."""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import torch_file

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".pyth", ".tar")
INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
WHOLE = "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"
LOW = (np.float16, ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file of weights holds: a tree of dicts of arrays; about: as `read_about`."""

    name: str
    tree: Any
    about: dict


def is_weights(path) -> bool:
    """Whether `path` is a file of weights, or a folder as transformers and timm save."""
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return any((path / name).exists() for name in (*INDEX, *WHOLE))
    return path.is_file()


def read(path) -> Content:
    """Reads a file or a folder; numbers of 16 bits come as float32. Raises UserError."""
    path = pathlib.Path(path).expanduser()
    try:
        if path.is_dir():
            return read_folder(path)
        about = read_about(path.parent) if path.name in WHOLE else {}
        return Content(str(path), widen(read_file(path)), about)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


def read_folder(path) -> Content:
    """Reads a folder as `save_pretrained` writes it: config.json, and one or more files."""
    about = read_about(path)
    for name in WHOLE:
        if (path / name).exists():
            return Content(str(path), widen(read_file(path / name)), about)
    index = next(path / name for name in INDEX if (path / name).exists())
    parts = read_json(index).get("weight_map", {})
    missing = sorted({n for n in parts.values() if not (path / n).exists()})
    if missing:
        raise UserError(
            f"{index.name} names files that aren't there: {', '.join(missing)}; "
            "download the rest of the folder"
        )
    tree = {}
    for name in sorted(set(parts.values())):
        tree |= read_file(path / name)
    if lost := sorted(set(parts) - set(tree)):
        raise UserError(f"its files lack {len(lost)} arrays, such as {lost[0]}")
    return Content(str(path), widen(tree), about)


def read_about(folder) -> dict:
    """A folder's config.json, with its preprocessor_config.json as "preprocessor"."""
    names = {"config.json": "", "preprocessor_config.json": "preprocessor"}
    about = {}
    for name, key in names.items():
        if (folder / name).exists():
            found = read_json(folder / name)
            about |= {key: found} if key else found
    return about


def read_json(path) -> dict:
    """A JSON file's dict; raises UserError."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path.name} is no JSON ({error})") from None
    return found if isinstance(found, dict) else {}


def read_file(path):
    """The tree of one file, its kind told by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"PK"):
        return read_npz(path) if is_npz(path) else torch_file.read(path)
    if len(start) > 9 and start[8:9] == b"{":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(
                f"it is damaged or only a part of the file ({error}); download it again"
            ) from None
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return read_old(path)
    if not start:
        raise UserError("it is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise UserError("it is a pointer of Git LFS, not the file; run: git lfs pull")
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        text = start.decode(errors="replace").split("\n")[0][:40]
        raise UserError(
            f"it is a text file ({text!r} ...), as a failed download leaves; download "
            "it again"
        )
    raise UserError(f"it is no file of weights ({', '.join(SUFFIXES)})")


def is_npz(path) -> bool:
    """Whether a zip archive holds arrays of numpy; UserError for one that is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise UserError(
            f"it is damaged or only a part of the file ({error}); download it again"
        ) from None
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path) -> dict:
    """Arrays of a `.npz` by name."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:
        raise UserError(f"it is damaged ({error}); download it again") from error


def read_old(path):
    """A file of torch's before 1.6, which torch alone can read."""
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            "torch before 1.6 wrote it, in a form that torch alone reads; install torch "
            "(pip install torch), or save it anew there: torch.save(torch.load(FILE), OUT)"
        ) from None
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        line = str(error).strip().splitlines()[0][:200]
        raise UserError(f"torch can't read it safely ({line})") from error
    return to_numpy(tree)


def to_numpy(tree):
    """A tree with torch's tensors as numpy arrays, all else as it is."""
    if isinstance(tree, dict):
        return {key: to_numpy(value) for key, value in tree.items()}
    if hasattr(tree, "detach"):
        tensor = tree.detach().cpu()
        low = str(tensor.dtype) in ("torch.bfloat16", "torch.float16")
        return (tensor.float() if low else tensor).numpy()
    return tree


def widen(tree):
    """A tree of dicts of arrays; numbers of 16 bits as float32."""
    if isinstance(tree, dict):
        return {key: widen(value) for key, value in tree.items()}
    if isinstance(tree, np.ndarray) and tree.dtype in LOW:
        return tree.astype(np.float32)
    return tree
