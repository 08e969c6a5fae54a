"""Checkpoints of a run: asynchronous, whole or not at all, restored onto any mesh."""

import contextlib
import time

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from vit_ssl_jax import skipping
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.workdir import manager
from vit_ssl_jax.workdir.folder import find
from vit_ssl_jax.workdir.restore import first_line, mismatch, shapes_of


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`, one folder a step."""

    def __init__(self, workdir, keep, every=0):
        """Keeps the newest `keep` checkpoints, and for good those of every `every` steps."""
        self._root = find(workdir) / "checkpoints"
        self._manager = manager.open_manager(self._root, keep, every)
        self._begun = None  # of the first save: when, until it is done
        self._saved = False

    def latest(self):
        """Step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def folder(self, step):
        """Where the checkpoint of a step is."""
        return self._root / str(step)

    def save(self, state, seconds):
        """Starts to save; returns once the state may be donated. `seconds` of training.

        Raises UserError where it can't, or the save before couldn't.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        run = {"seconds": seconds, "digest": int(digest(state))}
        if not self._saved:
            self._begun, self._saved = time.perf_counter(), True
        manager.start_save(self._manager, step, state, run)

    def try_room(self, state):
        """Raises UserError, on all processes, where there is no room for a checkpoint."""
        with processes.together(), manager.explained(self._root):
            manager.try_folder(self._root, state)

    def check(self):
        """Raises UserError where a save that was started has failed.

        Returns the seconds that the first one took, once, when it is done; else None.
        """
        with manager.explained(self._root):
            self._manager.check_for_errors()
        if self._begun is None or self._manager.is_saving_in_progress():
            return None
        took, self._begun = time.perf_counter() - self._begun, None
        return took

    def restore(self, *likes, whole=None):
        """Restores the newest whole checkpoint: `(state, seconds)`, or None.

        `likes` are states as ShapeDtypeStructs with the shardings to restore to: the
        first that fits is taken. A checkpoint that can't be read is set aside as
        `damaged-<step>` and the one before it is taken, as is one of whose state
        `whole` says False. Raises UserError where the checkpoint is of another model, or
        none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for i, step in enumerate(steps):
            with processes.together():
                (state, seconds, saved), reason = self._try(step, likes)
            # From here on all take part, or none: the digest is one of all devices.
            unread = processes.any_process(reason)
            if not unread and int(digest(state)) != saved:
                unread, reason = True, "its numbers are not those that were saved"
            if not unread and whole and not whole(state):
                unread, reason = True, "its numbers aren't all finite"
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
        """Reads `((state, seconds, digest), "")`; where it can't, Nones and why."""
        folder = self._root / str(step)
        try:
            shapes = shapes_of(self._manager.item_metadata(step)["state"])
            if not shapes:
                raise OSError("it lists no arrays")
            like = next((x for x in likes if shapes == shapes_of(x)), None)
            if like is None:
                raise UserError(mismatch(folder, shapes, shapes_of(likes[0])))
            return read(folder, like), ""
        except Exception as error:  # storage fails in many ways
            if isinstance(error, UserError) or is_exhausted(error):
                raise
            return (None, None, None), first_line(error)

    def _set_aside(self, damaged):
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if not damaged:
            return
        with processes.together():
            for step in damaged if jax.process_index() == 0 else ():
                target = self._root.parent / f"damaged-{step}"
                if target.exists():
                    target.rmtree()
                _move(self._root / str(step), target)
        self._manager.reload()

    def close(self):
        """Waits for the last save; raises UserError where it failed."""
        manager.close_manager(self._manager)


def _move(folder, target):
    """Renames a folder. A bucket moves file by file and, where an answer is lost, twice."""
    try:
        folder.rename(target)
    except FileNotFoundError:
        if not target.exists():
            raise
        if folder.exists():
            folder.rmtree()


def read(folder, like):
    """Reads `(state, seconds, digest)`, without waiting for other processes."""
    with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
        state = reader.restore(folder / "state", args=ocp.args.StandardRestore(like))
    with contextlib.closing(ocp.JsonCheckpointHandler()) as reader:
        run = reader.restore(folder / "run", args=ocp.args.JsonRestore())
    return state, run["seconds"], run["digest"]


def is_finite(state):
    """Whether what training goes on from is finite; online probes don't touch it."""
    return bool(_all_finite((state.params, state.opt_state, state.ema)))


_all_finite = jax.jit(skipping.all_finite)


@jax.jit
def digest(tree):
    """A sum over the bits of all arrays: uint32, the same on any mesh."""
    total = jnp.uint32(0)
    for i, x in enumerate(jax.tree.leaves(tree)):
        words = jax.lax.bitcast_convert_type(x, jnp.uint32)
        total += jnp.uint32(2 * i + 1) * jnp.sum(words, dtype=jnp.uint32)
    return total
