"""Reads checkpoints of this and of other runs: an encoder, all parameters, a part."""

import contextlib
import dataclasses
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir.folder import find

BEST = ":best"  # after a workdir: its best checkpoint
FREE = ("posemb", "cls", "registers")  # `[1 n D]`: positions, tokens beside the patches


def find_folder(path):
    """A checkpoint's folder: `path` itself, or the newest one of the workdir `path`.

    `WORKDIR:best` is the one that `config.keep_best` kept. Raises UserError where there
    is none.
    """
    if str(path).endswith(BEST):
        return find_best(str(path).removesuffix(BEST))
    path = find(path)
    if path.parent.name in ("checkpoints", "best") and (path / "state").exists():
        return path
    root = path / "checkpoints"
    steps = ocp.utils.checkpoint_steps(root) if root.exists() else []
    if not steps:
        raise UserError(
            f"there is no checkpoint under {root}; give the --workdir of a run that "
            "has saved one, or one of its checkpoints/STEP"
        )
    return root / str(max(steps))


def find_best(workdir):
    """The folder of a run's best checkpoint; raises UserError where it kept none."""
    root = find(workdir) / "best"
    steps = ocp.utils.checkpoint_steps(root) if root.exists() else []
    if not steps:
        raise UserError(
            f"{workdir} has no best checkpoint: it was trained without config.keep_best, "
            f"or hasn't measured that yet; give {workdir}, which is its newest, or train "
            "with --config.keep_best='max eval/classify/top1' or another metric of its "
            "evaluators"
        )
    return root / str(max(steps))


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint of a run."""

    folder: Any  # epath.Path, `checkpoints/STEP` or `best/STEP`

    @property
    def step(self):
        """How many steps it was trained for."""
        return int(self.folder.name)

    @property
    def label(self):
        """What to call it in names of files: run and step."""
        return f"{self.folder.parent.parent.name}-{self.folder.name}"

    @property
    def home(self):
        """The run's workdir."""
        return self.folder.parent.parent

    @property
    def parts(self):
        """Names of the model's parts that were saved: "encoder" and others."""
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
            return list(reader.metadata(self.folder / "state").tree["params"])

    def read(self, choose):
        """Restores the part of the state that `choose(metadata) -> shapes` asks for."""
        return read_part(self.folder, choose)


def opened(path):
    """The `Saved` of a path as of `find_folder`; what can be read already is itself."""
    return path if hasattr(path, "read") else Saved(find_folder(path))


def load_encoder(path, like, part=""):
    """The encoder of another run's newest checkpoint: `(params, folder)`.

    `path` is that run's workdir or a `checkpoints/STEP` in it, or a `weights.Weights`;
    `part` "params" or "ema", "" the one that downstream tasks use; `like` the encoder's
    parameters as ShapeDtypeStructs with the shardings to restore to. Where the run kept
    a teacher (I-JEPA) or averaged weights, it is theirs. Differences that are fine: a
    final norm, and tokens (FREE) that `like` has no use for, which are left out; tokens
    that only `like` has, which are missing then; and tokens of another number: they come
    in their own shape, whole on every device. Raises UserError for all others, and where
    nothing can be read. Unlike `restore` it can't check the digest, which is that of the
    whole state.
    """
    source = opened(path)
    folder = source.folder

    def choose(tree):
        taught = "ema" if "encoder" in (tree["ema"] or {}) else "params"
        chosen = part or taught
        saved, wanted = shapes_of(tree[chosen]["encoder"]), dict(like)
        unused = {k for k in saved if k.startswith("norm/") and "norm" not in like}
        for name in FREE:
            theirs, ours = saved.get(name), wanted.pop(name, None)
            if theirs and ours:
                wanted[name] = as_saved(theirs, ours)
            else:
                unused.add(name)
        saved = {k: v for k, v in saved.items() if k not in unused}
        if saved != shapes_of(wanted):
            raise UserError(mismatch(folder, saved, shapes_of(wanted)))
        return {chosen: {"encoder": wanted}}

    (found,) = source.read(choose).values()
    return found["encoder"], folder


def as_saved(shape, like):
    """What to restore an array of FREE to, of another number of rows or the same."""
    if shape == like.shape or shape[-1] != like.shape[-1]:
        return like
    whole = like.sharding.update(spec=jax.sharding.PartitionSpec())
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=whole)


def load_params(path, params, ema=None):
    """All parameters of a run's checkpoint and its averages: `(params, ema, folder)`.

    `path` as in `load_encoder`; `params` and `ema` are shapes to restore to, those of
    the run's `TrainState`. Without `ema` none is read. Raises UserError where the model
    is another or nothing can be read.
    """
    source = opened(path)
    folder, wanted = source.folder, {"params": params} | ({"ema": ema} if ema else {})

    def choose(tree):
        for part, like in wanted.items():
            if (saved := shapes_of(tree[part] or {})) != shapes_of(like):
                raise UserError(mismatch(folder, saved, shapes_of(like)))
        return wanted

    parts = source.read(choose)
    return parts["params"], parts.get("ema", {}), folder


def read_part(folder, choose):
    """Restores the part of a state that `choose(metadata) -> shapes` asks for."""
    try:
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
            like = choose(reader.metadata(folder / "state").tree)
            args = ocp.args.PyTreeRestore(
                item=like,
                restore_args=ocp.checkpoint_utils.construct_restore_args(like),
                partial_restore=True,
            )
            return reader.restore(folder / "state", args=args)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{folder} can't be read ({first_line(error)}); delete it to take the "
            "checkpoint before it"
        ) from error


def read_shapes(folder):
    """Flat `{path: shape}` of a checkpoint; raises UserError where it can't be read."""
    try:
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
            return shapes_of(reader.metadata(folder / "state").tree)
    except Exception as error:
        raise UserError(f"{folder} can't be read ({first_line(error)})") from error


def shapes_of(tree):
    """Flat `{path: shape}` of arrays, shapes or checkpoint metadata."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves)
    return {name: tuple(x.shape) for name, (_, x) in zip(names, leaves)}


def first_line(error):
    """The first line of what went wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def mismatch(path, saved, wanted):
    """One message that lists what is missing (-), extra (+) and of another shape (~)."""
    lines = [f"  - {k} {wanted[k]}" for k in sorted(wanted.keys() - saved.keys())]
    lines += [f"  + {k} {saved[k]}" for k in sorted(saved.keys() - wanted.keys())]
    lines += [
        f"  ~ {k} {saved[k]}, the config makes {wanted[k]}"
        for k in sorted(saved.keys() & wanted.keys())
        if saved[k] != wanted[k]
    ]
    shown = lines[:12] + ([f"  ... {len(lines) - 12} more"] if len(lines) > 12 else [])
    return (
        f"{path} holds another model than the config describes (- missing there, "
        "+ only there, ~ another shape):\n" + "\n".join(shown) + "\n"
        "Give another workdir, or the config that this run was started with "
        "(config.json beside it)."
    )
