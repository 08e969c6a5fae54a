"""A disk without room, a real one of 2 MiB: told before a checkpoint is begun."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from vit_ssl_jax.errors import UserError, explain_error
from vit_ssl_jax.step import TrainState
from vit_ssl_jax.workdir.checkpoint import Checkpoints


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of 2 MiB and 300 files, in memory."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=300", "tmpfs", tmp_path]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"left out: {error}")
    if made.returncode:
        pytest.skip(f"left out: only root can mount: {made.stderr}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def state_of(mebibytes):
    params = {"kernel": jnp.zeros((mebibytes, 2**18))}
    return TrainState(jnp.asarray(1, jnp.int32), params, {}, {})


def test_a_checkpoint_that_has_no_room_is_refused_before_it_is_begun(disk):
    checkpoints = Checkpoints(disk, 1)
    checkpoints.try_room(state_of(1))
    said = r"it takes 3.0 MiB and about 50 files, and there is room for 2.0 MiB"
    with pytest.raises(UserError, match=said):
        checkpoints.try_room(state_of(3))
    with pytest.raises(UserError, match=said):
        checkpoints.save(state_of(3), 0.0)
    for i in range(260):
        (disk / f"{i}").touch()
    with pytest.raises(UserError, match=r"and 3\d files"):
        checkpoints.save(state_of(1), 0.0)
    checkpoints.close()
    assert not os.listdir(disk / "checkpoints")


def test_a_full_disk_ends_a_command_with_one_line(disk):
    """Before any step; the file that can't be written is named."""
    with pytest.raises(OSError, match="No space left"), open(disk / "fill", "wb") as f:
        f.write(bytes(3 * 2**20))
    recipe = ["--config=configs/quickstart.py:mae", "--config.data.name=fake"]
    command = [sys.executable, "-m", "vit_ssl_jax.main", *recipe]
    done = subprocess.run(
        [*command, f"--workdir={disk}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    line = f"error: No space left on device: {disk / 'running.json'}; make room there"
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_other_errors_keep_their_traceback():
    assert explain_error(UserError("what to change")) == "what to change"
    assert not explain_error(FileNotFoundError(2, "No such file", "x"))
    assert not explain_error(ValueError("x"))
