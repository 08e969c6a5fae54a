"""Checkpoints of a run: asynchronous, whole or not at all, restored onto any mesh."""

import contextlib

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from vit_ssl_jax import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import find


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`, one folder a step."""

    def __init__(self, workdir, keep):
        """Keeps the newest `keep` checkpoints."""
        self._root = find(workdir) / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self._root,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    def latest(self):
        """Step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state, seconds):
        """Starts to save; returns once the state may be donated. `seconds` of training.

        A failure of the save before is raised here.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        run = {"seconds": seconds, "digest": int(digest(state))}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run)
        )
        self._manager.save(step, args=args)

    def restore(self, *likes):
        """Restores the newest whole checkpoint: `(state, seconds)`, or None.

        `likes` are states as ShapeDtypeStructs with the shardings to restore to: the
        first that fits is taken. A checkpoint that can't be read is set aside as
        `damaged-<step>` and the one before it is taken. Raises UserError where the
        checkpoint is of another model, or none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for i, step in enumerate(steps):
            with processes.together():
                (state, seconds, saved), reason = self._try(step, likes)
            # From here on all take part, or none: the digest is one of all devices.
            unread = processes.any_process(reason)
            if not unread and int(digest(state)) != saved:
                unread, reason = True, "its numbers are not those that were saved"
            if not unread:
                self._set_aside(steps[:i])
                return state, seconds
            logging.warning(
                "Checkpoint %s is damaged (%s); trying the one before it.",
                self._root / str(step),
                reason or "says another process",
            )
        if steps:
            raise UserError(
                f"none of the checkpoints under {self._root} (steps "
                f"{', '.join(map(str, steps))}) can be read; give a new --workdir, or "
                "delete that folder to start again"
            )
        return None

    def _try(self, step, likes):
        """`((state, seconds, digest), "")`, or Nones and why this process can't read it."""
        folder = self._root / str(step)
        try:
            found = _shapes(self._manager.item_metadata(step)["state"])
            if not found:
                raise OSError("it lists no arrays")
            like = next((x for x in likes if found == _shapes(x)), None)
            if like is None:
                raise UserError(_mismatch(folder, found, _shapes(likes[0])))
            return _read(folder, like), ""
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - storage fails in many ways
            return (None, None, None), _reason(error)

    def _set_aside(self, damaged):
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if not damaged:
            return
        with processes.together():
            for step in damaged if jax.process_index() == 0 else ():
                target = self._root.parent / f"damaged-{step}"
                if target.exists():
                    target.rmtree()
                (self._root / str(step)).rename(target)
        self._manager.reload()

    def close(self):
        """Waits for the last save and raises its error, if any."""
        self._manager.wait_until_finished()
        self._manager.close()


def _read(folder, like):
    """`(state, seconds, digest)`. The manager's own way waits for other processes."""
    with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
        state = reader.restore(folder / "state", args=ocp.args.StandardRestore(like))
    with contextlib.closing(ocp.JsonCheckpointHandler()) as reader:
        run = reader.restore(folder / "run", args=ocp.args.JsonRestore())
    return state, run["seconds"], run["digest"]


def find_folder(path):
    """A checkpoint's folder: `path` itself, or the newest one of the workdir `path`.

    Raises UserError where there is none.
    """
    path = find(path)
    if path.parent.name == "checkpoints" and (path / "state").exists():
        return path
    root = path / "checkpoints"
    steps = ocp.utils.checkpoint_steps(root) if root.exists() else []
    if not steps:
        raise UserError(
            f"there is no checkpoint under {root}; give the --workdir of a run that "
            "has saved one, or one of its checkpoints/STEP"
        )
    return root / str(max(steps))


def load_encoder(path, like):
    """The encoder of another run's newest checkpoint: `(params, folder)`.

    `path` is that run's workdir or a `checkpoints/STEP` in it; `like` the encoder's
    parameters as ShapeDtypeStructs with the shardings to restore to. Where the run kept
    a teacher (I-JEPA) or averaged weights, it is theirs. Differences that are fine: a
    final norm that `like` has no use for, which is left out; and a learned position
    table that only `like` has, or that is of another grid: it comes in its own shape,
    whole on every device. Raises UserError for all others, and where nothing can be
    read. Unlike `restore` it can't check the digest, which is that of the whole state.
    """
    folder = find_folder(path)

    def choose(tree):
        part = "ema" if "encoder" in (tree["ema"] or {}) else "params"
        found, wanted = _shapes(tree[part]["encoder"]), dict(like)
        table, ours = found.get("posemb"), wanted.pop("posemb", None)
        if table and ours:
            shape = table if table[-1] == ours.shape[-1] else ours.shape
            whole = ours.sharding.update(spec=jax.sharding.PartitionSpec())
            wanted["posemb"] = jax.ShapeDtypeStruct(shape, ours.dtype, sharding=whole)
        unused = {k for k in found if k.startswith("norm/") and "norm" not in like}
        found = {k: v for k, v in found.items() if k not in unused}
        if found != _shapes(wanted):
            raise UserError(_mismatch(folder, found, _shapes(wanted)))
        return {part: {"encoder": wanted}}

    (part,) = read_part(folder, choose).values()
    return part["encoder"], folder


def load_params(path, like):
    """All parameters of a run's checkpoint: `(params, averaged or None, folder)`.

    `path` as in `load_encoder`, `like` all parameters. `averaged` are those that the
    run kept under the same names beside (`config.method.ema`). Raises UserError where
    the model is another or nothing can be read.
    """
    folder, wanted = find_folder(path), _shapes(like)

    def choose(tree):
        found = _shapes(tree["params"])
        if found != wanted:
            raise UserError(_mismatch(folder, found, wanted))
        averaged = _shapes(tree["ema"] or {}) == wanted
        return {"params": like} | ({"ema": like} if averaged else {})

    parts = read_part(folder, choose)
    return parts["params"], parts.get("ema"), folder


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
            f"{folder} can't be read ({_reason(error)}); delete it to take the "
            "checkpoint before it"
        ) from error


@jax.jit
def digest(tree):
    """A sum over the bits of all arrays: uint32, the same on any mesh."""
    total = jnp.uint32(0)
    for i, x in enumerate(jax.tree.leaves(tree)):
        words = jax.lax.bitcast_convert_type(x, jnp.uint32)
        total += jnp.uint32(2 * i + 1) * jnp.sum(words, dtype=jnp.uint32)
    return total


def _shapes(tree):
    """Flat `{path: shape}` of arrays, shapes or checkpoint metadata."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = (jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves)
    return {name: tuple(x.shape) for name, (_, x) in zip(names, leaves)}


def _reason(error):
    """The first line of what went wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _mismatch(path, found, wanted):
    """One message that lists what is missing (-), extra (+) and of another shape (~)."""
    lines = [f"  - {k} {wanted[k]}" for k in sorted(wanted.keys() - found.keys())]
    lines += [f"  + {k} {found[k]}" for k in sorted(found.keys() - wanted.keys())]
    lines += [
        f"  ~ {k} {found[k]}, the config makes {wanted[k]}"
        for k in sorted(found.keys() & wanted.keys())
        if found[k] != wanted[k]
    ]
    shown = lines[:12] + ([f"  ... {len(lines) - 12} more"] if len(lines) > 12 else [])
    return (
        f"{path} holds another model than the config describes (- missing there, "
        "+ only there, ~ another shape):\n" + "\n".join(shown) + "\n"
        "Give another workdir, or the config that this run was started with "
        "(config.json beside it)."
    )
