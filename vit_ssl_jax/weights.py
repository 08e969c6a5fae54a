"""Weights that other code saved, as if they were a run's: config and parameters."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from etils import epath

from vit_ssl_jax import build, partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import configs, files, recognise, table

ONE_DEVICE = dict(data=1, fsdp=1, tensor=1)
# Facts that a caller may give.
GIVEN = (
    "heads",
    "decoder_heads",
    "size",
    "mean",
    "std",
    "norm_eps",
    "gelu",
    "crop_pct",
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of weights that was read.

    name: of the file. source: a name of `interop.sources`. config: as a run's
    config.json, nested dicts. tree: `{"params", "ema"}` of numpy arrays. lines: what was
    guessed and what was left out. unknown: keys of the config that the file can't tell.
    left_out: arrays that take part in nothing here, by their names.
    """

    name: str
    source: str
    config: dict
    tree: Any
    lines: tuple
    unknown: tuple
    left_out: dict

    step = 0

    @property
    def folder(self):
        """Where it lies."""
        return epath.Path(self.name)

    @property
    def label(self):
        """What to call it in names of files."""
        return self.folder.stem

    @property
    def home(self):
        """The folder that it lies in."""
        return self.folder.parent

    @property
    def parts(self):
        """Names of the model's parts that it has: "encoder" and others."""
        return list(self.tree["params"])

    def read(self, choose):
        """Puts the part of the tree that `choose(shapes) -> shapes` asks for on devices."""
        like = choose(self.tree)

        def put(like, array):
            array = np.asarray(array, like.dtype)
            return partition.put(array, like.sharding) if like.sharding else array

        return put_tree(put, like, self.tree)


def put_tree(put, like, tree):
    """`put` of every leaf of `like` and the one of `tree` at its place."""
    if isinstance(like, dict):
        return {key: put_tree(put, value, tree[key]) for key, value in like.items()}
    return put(like, tree)


def is_weights(path) -> bool:
    """Whether `path`, a file, a folder or a state_dict, holds weights of other code."""
    return isinstance(path, dict) or files.is_weights(path)


def read(path, **given) -> Weights:
    """Reads weights: a file, a folder as transformers and timm save, or a state_dict.

    given: facts that go before what the file says, GIVEN: `size` is (H, W). Raises
    UserError for a layout that isn't known, for what the file can't tell, and for arrays
    that are missing or too many.
    """
    if isinstance(path, dict):
        content = files.Content("state_dict", files.widen(files.to_numpy(path)), {})
        return convert(content, given)
    path = pathlib.Path(path).expanduser()
    stamps = tuple(f.stat().st_mtime_ns for f in [path, *sorted(path.glob("*"))])
    return read_once(str(path), stamps, tuple(sorted(given.items())))


@functools.lru_cache(2)
def read_once(path, stamps, given) -> Weights:
    """`read` of a path; several calls of one command read it once."""
    del stamps
    return convert(files.read(path), dict(given))


def convert(content, given) -> Weights:
    """The `Weights` of a `files.Content`; raises UserError with its name."""
    try:
        found = recognise.recognise(content, given)
        config = configs.make_config(found)
        mesh = partition.make_mesh(ONE_DEVICE, jax.devices()[:1])
        rows = found.source.rows(found, build.make_model(config, mesh).method.model)
        tree, left_out = import_tree(found, rows)
    except UserError as error:
        raise UserError(f"{content.name}: {error}") from error
    config = as_lists(config.to_dict())
    unknown = tuple(f"data.{k}" for k in ("mean", "std") if found.facts[k] is None)
    lines = [
        f"weights: {content.name} is {found.source.name}'s, ViT {config['vit']['variant']}",
        *(f"weights: {text}" for text in found.says),
    ]
    if left_out:
        lines.append(f"weights: left out: {', '.join(sorted(left_out))}")
    return Weights(
        name=content.name,
        source=found.source.name,
        config=config,
        tree=tree,
        lines=tuple(lines),
        unknown=unknown,
        left_out=left_out,
    )


def as_lists(tree):
    """A config's tuples as lists, as JSON has them."""
    if isinstance(tree, dict):
        return {key: as_lists(value) for key, value in tree.items()}
    return [as_lists(x) for x in tree] if isinstance(tree, tuple) else tree


def import_tree(found, rows):
    """`({"params", "ema"}, arrays left out)` of what was recognised."""
    if isinstance(rows, dict):  # I-JEPA's three parts
        trees = {
            part: table.import_params(rows[part], found.state[part]) for part in rows
        }
        params = {**trees["encoder"], **trees["predictor"]}
        return {"params": params, "ema": trees["target_encoder"]}, {}
    unused = {n for r in rows if isinstance(r, table.Unused) for n in r.names}
    needed = {name for r in rows for name in r.names} - unused
    extra = {
        name: array
        for name, array in found.state.items()
        if name not in needed and is_left_out(name, found)
    }
    state = {name: x for name, x in found.state.items() if name not in extra}
    return {"params": table.import_params(rows, state), "ema": {}}, extra


def is_left_out(name, found) -> bool:
    """Whether an array that no row reads may be left out, and said so."""
    if found.source.name == "relvit" and name == "backbone.pos_embed":
        return True  # stored upstream, too, where nothing reads it
    head = found.source.names.get("head", "head")
    other = name.startswith((f"{head}.", f"{head}/", "pre_logits/"))
    return bool(recognise.LEFT_OUT.match(name)) or (other and not found.classes)


def check_known(weights):
    """Raises UserError where the file can't tell how images are to be normalised."""
    if weights.unknown:
        keys = " and ".join(key.partition(".")[2] for key in weights.unknown)
        raise UserError(
            f"{weights.name}: {weights.source}'s files don't tell the {keys} that images "
            "were normalised with; in Python give mean=(R, G, B) and std=(R, G, B); for "
            "commands make a workdir of it: python -m vit_ssl_jax.convert import "
            f"{weights.name} --mean=imagenet (or half, or R,G,B) --out=WORKDIR"
        )
