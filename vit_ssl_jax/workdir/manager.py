"""Orbax's manager of checkpoints: opened, tried, saved to, closed, its failures in words."""

import contextlib
import os

import jax
import orbax.checkpoint as ocp

from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.workdir.folder import is_stored
from vit_ssl_jax.workdir.restore import first_line

FILES = 50  # and folders of a checkpoint, about


def open_manager(root, keep, every=0):
    """Orbax's manager of the newest `keep` checkpoints in a folder, each `state` and `run`.

    Those of multiples of `every` stay for good; 0: none.
    """
    with explained(root):
        if root.exists() and not root.is_dir():
            raise NotADirectoryError("it is a file")
        return ocp.CheckpointManager(
            root,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, keep_period=every or None
            ),
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
    with processes.together(), explained(manager.directory):
        # The save before, whose end makes room; Orbax waits for it, too.
        manager.wait_until_finished()
        try_folder(manager.directory, state)
    with explained(manager.directory):
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
    known = space.f_blocks > 0  # some mounts don't tell
    if known and free < needed or 0 < space.f_files and space.f_favail < FILES:
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
