"""What a checkpoint costs a run: how long a step is held, how long it takes, what is read.

A step is held while its state is copied from the devices and its digest is taken; files
are written meanwhile. An encoder alone is read from a checkpoint of the whole state.
"""

import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from vit_ssl_jax import build, pretrained
from vit_ssl_jax.workdir import folder
from vit_ssl_jax.workdir.checkpoint import Checkpoints

TRIES = 3  # after a first one, which compiles
IO = pathlib.Path("/proc/self/io")


def measure(config, where: str) -> dict:
    """Saves the state of a config's run in a folder of its own below `where`, and removes it.

    `where`: "" is the system's folder for temporary files. Seconds and bytes.
    """
    run = build.make_run(config)
    state = run.program.init(jax.random.key(config.seed))
    top = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=where or None))
    try:
        copies = [clock(lambda: copy(state))[0] for _ in range(TRIES)]
        folder.write_config(config, folder.find(top), "bench")
        saves = [save(state, top, number) for number in range(TRIES + 1)]
        one = pretrained.open_saved(str(top))
        before = bytes_read()
        seconds, encoder = clock(
            lambda: pretrained.load(one, run.encoder, run.encoder_shapes)[0]
        )
        read = bytes_read() - before
        files = [file for file in pathlib.Path(one.folder).rglob("*") if file.is_file()]
        stored = sum(file.stat().st_size for file in files)
    finally:
        shutil.rmtree(top)
    held, taken = zip(*saves[1:], strict=True)
    return dict(
        device=f"{run.mesh.size} x {jax.devices()[0].device_kind}",
        state_bytes=total_bytes(state),
        stored_bytes=stored,
        copy_seconds=statistics.median(copies),
        first_held_seconds=saves[0][0],
        held_seconds=statistics.median(held),
        save_seconds=statistics.median(taken),
        encoder_bytes=total_bytes(encoder),
        encoder_read_bytes=read if IO.exists() else None,
        encoder_seconds=seconds,
    )


def copy(state):
    """The state in this process's memory; a CPU's is there already, and is copied."""
    on_host = jax.device_get(state)
    if jax.default_backend() == "cpu":
        on_host = jax.tree.map(np.array, on_host)
    return on_host


def save(state, top, number):
    """Seconds that a save holds the run, and until it is done."""
    checkpoints = Checkpoints(top, 1)
    begun = time.perf_counter()
    checkpoints.save(state.replace(step=np.int32(number)), 0.0)
    held = time.perf_counter() - begun
    checkpoints.close()
    return held, time.perf_counter() - begun


def clock(work):
    """Seconds that `work()` takes, and what it gives."""
    begun = time.perf_counter()
    out = jax.block_until_ready(work())
    return time.perf_counter() - begun, out


def bytes_read():
    """Bytes that this process has read so far, cached by the system or not; 0: unknown."""
    return int(IO.read_text().split()[1]) if sys.platform == "linux" else 0


def total_bytes(tree):
    """Bytes of a tree's arrays."""
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "nbytes")]
    return sum(x.nbytes for x in leaves)


def describe(f) -> str:
    """What `measure` found, in lines."""
    mib = {k: v / 2**20 for k, v in f.items() if k.endswith("bytes") and v is not None}
    part = f["held_seconds"] / f["copy_seconds"]
    read = f"{mib['encoder_read_bytes']:,.1f} MiB" if f["encoder_read_bytes"] else "?"
    return f"""\
{f["device"]}: a state of {mib["state_bytes"]:,.1f} MiB, {mib["stored_bytes"]:,.1f} in a checkpoint
copied from the devices in {f["copy_seconds"]:.3f} s
a save holds the step {f["held_seconds"]:.3f} s, {part:.2f} of that copy; the first one, which \
compiles, {f["first_held_seconds"]:.2f} s
it is done after {f["save_seconds"]:.2f} s
the encoder alone, {mib["encoder_bytes"]:,.1f} MiB, is read in {f["encoder_seconds"]:.2f} s from \
{read} of the checkpoint"""
