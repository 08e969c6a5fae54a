"""Checks of what a run writes: a file of the workdir, a checkpoint, each read back."""

import contextlib
import os
import secrets
import time

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from vit_ssl_jax.distributed import processes
from vit_ssl_jax.doctor import findings
from vit_ssl_jax.step import TrainState
from vit_ssl_jax.workdir import checkpoint
from vit_ssl_jax.workdir.folder import find, is_stored, open_workdir

FILE_BYTES = 8 << 20
VALUES = 1 << 22  # float32 in the checkpoint
CURE = (
    "the storage doesn't give back what was written: look at the disk (dmesg, df -h) or "
    "the mount, or give another --workdir"
)


@contextlib.contextmanager
def opened(path):
    """Gives a new folder in the workdir, which is left as it was; raises UserError."""
    path = find(path)
    made = [] if is_stored(path) else missing(path)
    processes.wait_for_all("the doctor has seen whether there is a workdir")
    number = multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32)))
    root = open_workdir(path) / f".doctor-{int(number):08x}"
    with processes.together():
        if jax.process_index() == 0:
            root.mkdir()
    try:
        yield root
    finally:
        processes.wait_for_all("the doctor is done with the workdir")
        if jax.process_index() == 0:
            root.rmtree()
            for folder in made:
                with contextlib.suppress(OSError):  # somebody else uses it by now
                    folder.rmdir()


def missing(path):
    """The folders of a path that aren't there, the deepest first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def check_file(root):
    """Writes a file, has it on the disk (`fsync`), reads it back: a finding."""
    file = root / f"file-{jax.process_index()}"
    data = np.random.default_rng(0).bytes(FILE_BYTES)
    begun = time.perf_counter()
    write(file, data)
    written = time.perf_counter()
    same = read(file) == data
    numbers = dict(
        write_bytes_per_second=FILE_BYTES / (written - begun),
        read_bytes_per_second=FILE_BYTES / (time.perf_counter() - written),
    )
    if not same:
        text = f"{root.parent} gives back other bytes than were written"
        return findings.make("workdir", False, text, CURE, **numbers)
    how = "written" if is_stored(file) else "written, fsynced"
    rates = " and ".join(f"{rate / 1e6:.3g}" for rate in numbers.values())
    text = f"{root.parent}: {FILE_BYTES >> 20} MiB {how} and read back, {rates} MB/s"
    return findings.make("workdir", True, text, **numbers)


def write(file, data):
    """Writes a file; on a disk it is there when this returns."""
    if is_stored(file):
        epath.Path(file).write_bytes(data)
        return
    with open(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def read(file):
    """A file's bytes; from the disk, where the system can be asked to forget them."""
    if is_stored(file):
        return epath.Path(file).read_bytes()
    with open(file, "rb") as opened_file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return opened_file.read()


def check_checkpoint(root, mesh):
    """Saves a state that is spread over the devices and restores it: a finding."""
    begun = time.perf_counter()
    state = save(root, mesh)
    saved = time.perf_counter()
    back = restore(root, state)
    numbers = dict(
        save_seconds=saved - begun, restore_seconds=time.perf_counter() - saved
    )
    if not bool(jax.jit(equal)(state, back)):
        text = "a checkpoint comes back with other numbers than were saved"
        return findings.make("checkpoint", False, text, CURE, **numbers)
    times = f"{numbers['save_seconds']:.2g} s, restored in "
    times += f"{numbers['restore_seconds']:.2g} s, bit-equal"
    text = f"{VALUES * 4 >> 20} MiB of {mesh.size} device(s) saved in {times}"
    return findings.make("checkpoint", True, text, **numbers)


def save(root, mesh):
    """A state and its checkpoint under `root`, as a run saves one."""
    layout = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())

    def make(key):
        values = jax.random.normal(key, (mesh.size, VALUES // mesh.size))
        step = jnp.ones((), jnp.int32)
        return TrainState(step=step, params={"w": values}, opt_state={}, ema={})

    shape = jax.eval_shape(make, jax.random.key(0))
    place = jax.tree.map(lambda x: layout if x.ndim else whole, shape)
    state = jax.jit(make, out_shardings=place)(jax.random.key(0))
    with contextlib.closing(checkpoint.Checkpoints(root, 1)) as checkpoints:
        checkpoints.save(state, 0.0)
    return state


def restore(root, state):
    """The state that the checkpoint under `root` holds."""
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    with contextlib.closing(checkpoint.Checkpoints(root, 1)) as checkpoints:
        return checkpoints.restore(like)[0]


def equal(a, b):
    """Whether two trees of arrays have the same numbers."""
    return jnp.all(jnp.stack(jax.tree.leaves(jax.tree.map(jnp.array_equal, a, b))))
