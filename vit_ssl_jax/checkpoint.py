"""Checkpoints of a run: asynchronous, whole or not at all, restored onto any mesh."""

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from vit_ssl_jax.errors import UserError


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`, one folder a step."""

    def __init__(self, workdir, keep):
        """Keeps the newest `keep` checkpoints."""
        self._root = epath.Path(workdir).absolute() / "checkpoints"
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
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                run=ocp.args.JsonSave(
                    {"seconds": seconds, "digest": int(digest(state))}
                ),
            ),
        )

    def restore(self, like):
        """Restores the newest whole checkpoint: `(state, seconds)`, or None.

        `like` is the state as ShapeDtypeStructs with the shardings to restore to. A
        checkpoint that can't be read is set aside as `damaged-<step>` and the one
        before it is taken. Raises UserError where the checkpoint is of another model,
        or none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = []
        for step in steps:
            try:
                found = _shapes(self._manager.item_metadata(step)["state"])
                if not found:
                    raise OSError("it lists no arrays")
                same = found == _shapes(like)
                out = self._read(step, like) if same else None
            except Exception as error:  # noqa: BLE001 - storage fails in many ways
                logging.warning(
                    "Checkpoint %s is damaged (%s); trying the one before it.",
                    self._root / str(step),
                    _reason(error),
                )
                damaged.append(step)
                continue
            if not same:
                raise UserError(_mismatch(self._root / str(step), found, _shapes(like)))
            self._set_aside(damaged)
            return out
        if damaged:
            raise UserError(
                f"none of the checkpoints under {self._root} (steps "
                f"{', '.join(map(str, steps))}) can be read; give a new --workdir, or "
                "delete that folder to start again"
            )
        return None

    def _read(self, step, like):
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), run=ocp.args.JsonRestore()
        )
        out = self._manager.restore(step, args=args)
        state, run = out["state"], out["run"]
        if int(digest(state)) != run["digest"]:
            raise OSError("its numbers are not those that were saved")
        return state, run["seconds"]

    def _set_aside(self, damaged):
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if not damaged:
            return
        if jax.process_index() == 0:
            for step in damaged:
                target = self._root.parent / f"damaged-{step}"
                if target.exists():
                    target.rmtree()
                (self._root / str(step)).rename(target)
        self._manager.reload()

    def close(self):
        """Waits for the last save and raises its error, if any."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_encoder(path, like):
    """The encoder of another run's newest checkpoint: `(params, folder)`.

    `path` is that run's workdir; `like` the encoder's parameters as ShapeDtypeStructs
    with the shardings to restore to. Where the run kept a teacher (I-JEPA), it is the
    teacher's. Two differences are fine: a final norm that `like` has no use for, and a
    learned position table that only `like` has; neither is in the params. Raises
    UserError for all others, and where nothing can be read. Unlike `restore` it can't
    check the digest, which is that of the whole state.
    """
    root = epath.Path(path).absolute() / "checkpoints"
    steps = ocp.utils.checkpoint_steps(root) if root.exists() else []
    if not steps:
        raise UserError(
            f"config.init_from: there is no checkpoint under {root}; give the --workdir "
            "of a run that has saved one"
        )
    folder = root / str(max(steps))
    try:
        return _read_encoder(folder, like), folder
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"config.init_from: {folder} can't be read ({_reason(error)}); delete it to "
            "take the checkpoint before it"
        ) from error


def _read_encoder(folder, like):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(folder / "state").item_metadata.tree
        part = "ema" if "encoder" in (tree["ema"] or {}) else "params"
        found, wanted = _shapes(tree[part]["encoder"]), _shapes(like)
        unused = {k for k in found.keys() - wanted.keys() if k.startswith("norm/")}
        fresh = (wanted.keys() - found.keys()) & {"posemb"}
        found = {k: v for k, v in found.items() if k not in unused}
        if found | {k: wanted[k] for k in fresh} != wanted:
            raise UserError("config.init_from: " + _mismatch(folder, found, wanted))
        item = {part: {"encoder": {k: v for k, v in like.items() if k not in fresh}}}
        args = ocp.args.PyTreeRestore(
            item=item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        return reader.restore(folder / "state", args=args)[part]["encoder"]


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
    return {"/".join(map(_name, path)): tuple(x.shape) for path, x in leaves}


def _name(key):
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


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
