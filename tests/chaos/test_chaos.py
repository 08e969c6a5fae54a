"""A small attack, with every change: nothing is lost. The whole one: python -m tests.chaos."""

import subprocess
import sys

import pytest

from tests import runs

FEW = ("kill_in_saves", "ask_to_stop", "insist", "damage_files", "remove_workdir")
FEW += ("start_twice",)


@pytest.mark.slow  # ~ 100 s
def test_a_small_attack_loses_nothing():
    command = [sys.executable, "-m", "tests.chaos", "--quick", "--seed=1"]
    done = subprocess.run(
        [*command, "--only", *FEW],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(FEW)  # with the head
