"""Checkpoints of a run: asynchronous, whole or not at all, restored onto any mesh."""

import contextlib
import os

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from vit_ssl_jax import skipping
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.workdir.folder import find, is_stored
from vit_ssl_jax.workdir.restore import first_line, mismatch, shapes_of

FILES = 50  # and folders of a checkpoint, about


class Checkpoints:
    """The checkpoints under `workdir/checkpoints`, one folder a step."""

    def __init__(self, workdir, keep):
        """Keeps the newest `keep` checkpoints."""
        self._root = find(workdir) / "checkpoints"
        self._manager = open_manager(self._root, keep)

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
        start_save(self._manager, step, state, run)

    def try_room(self, state):
        """Raises UserError, on all processes, where there is no room for a checkpoint."""
        with processes.together(), explained(self._root):
            try_folder(self._root, state)

    def check(self):
        """Raises UserError where a save that was started has failed."""
        with explained(self._root):
            self._manager.check_for_errors()

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
        close_manager(self._manager)


def open_manager(root, keep):
    """Orbax's manager of the newest `keep` checkpoints in a folder, each `state` and `run`."""
    with explained(root):
        if root.exists() and not root.is_dir():
            raise NotADirectoryError("it is a file")
        return ocp.CheckpointManager(
            root,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )


def start_save(manager, step, state, run):
    """Starts to save arrays and the JSON `run`; returns once `state` may be donated.

    Raises UserError where it can't, or the save before couldn't.
    """
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run)
    )
    with explained(manager.directory):
        try_folder(manager.directory, state)
        manager.save(step, args=args)


def close_manager(manager):
    """Waits for the last save; raises UserError where it failed."""
    with explained(manager.directory):
        manager.wait_until_finished()
        manager.close()


def try_folder(root, state):
    """Makes and removes a folder in `root`; raises OSError where it can't, or where there
    isn't room for `state`.

    What fails in Orbax's threads is noticed later, and they wait for minutes then. Process
    0 tries; a store of objects isn't tried.
    """
    if jax.process_index() or is_stored(root):
        return
    needed = sum(x.nbytes for x in jax.tree.leaves(state))
    space = os.statvfs(root)
    free = space.f_bavail * space.f_frsize
    if free < needed or 0 < space.f_files and space.f_favail < FILES:
        files = f" and {space.f_favail:,} files" if space.f_files else ""
        raise OSError(
            f"it takes {needed / 2**20:,.1f} MiB and about {FILES} files, and there is room "
            f"for {free / 2**20:,.1f} MiB{files}"
        )
    trial = root / f".try-{os.getpid()}"
    with contextlib.suppress(FileExistsError):  # of one that was killed here
        trial.mkdir()
    trial.rmdir()


@contextlib.contextmanager
def explained(root):
    """Turns what storage fails with inside into one message about the folder `root`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_exhausted(error):
            raise
        raise UserError(
            f"a checkpoint can't be written to {root} ({first_line(error)}); see that "
            "there is space and the right to write, then the same command goes on from "
            "the last whole one"
        ) from error


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
