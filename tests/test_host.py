"""What a process has set before jax computes: seen from outside, in a process of its own."""

import json
import platform
import subprocess
import sys

import pytest

from tests import runs


def run(code, *words):
    """Runs a program to its end; what it prints last as JSON."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(
        command,
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


AFTER_TRAINING = """
import atexit, json, runpy, sys
def look():
    import jax, jax.numpy as jnp
    call = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda i, x: x @ x, x))
    x = jnp.eye(800)
    jax.block_until_ready(call(x))
    print(json.dumps(call(x).is_ready()))
sys.argv = ["main", *sys.argv[1:]]
try:
    runpy.run_module("vit_ssl_jax.main", run_name="__main__", alter_sys=True)
except SystemExit as done:
    assert not done.code
look()
"""


def test_the_train_command_computes_before_a_call_returns(tmp_path):
    """So that want of memory is an error of the call, not a wait without end."""
    changes = runs.SMALL | {"steps": 1}
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    config = "--config=configs/quickstart.py:mae"
    assert run(AFTER_TRAINING, config, f"--workdir={tmp_path}", *flags) is True


FREED = """
import json, pathlib, sys
import numpy as np
from vit_ssl_jax import host
if sys.argv[1] == "kept":
    host.prepare()
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
np.ones(10_000_000)
print(json.dumps(resident() - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt")
def test_freed_memory_is_kept_for_the_next_step():
    """Of 80 MB that were written and freed all stay in memory, and else none."""
    assert run(FREED, "kept") > 75e6
    assert run(FREED, "as it is") < 5e6
