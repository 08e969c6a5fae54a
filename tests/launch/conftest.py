"""Launch scripts started with a PATH that has what the test puts there and no more."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"
TOOLS = "bash cat chmod dirname env grep kill mkdir nohup paste pkill realpath"
TOOLS += " rm sh sleep sort tail tee touch wc"


class Stage:
    """`stage("tpu_vm.sh", ...)` runs a script; `stage.tool(name, text)` adds a command."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in TOOLS.split():
            if path := shutil.which(name):
                (self.bin / name).symlink_to(path)

    def tool(self, name, text):
        """A command that appends its arguments to NAME.log, and then does `text`."""
        path = self.bin / name
        path.unlink(missing_ok=True)  # a link's target stays as it is
        log = self.folder / f"{name}.log"
        path.write_text(f'#!/bin/bash\necho "$*" >>"{log}"\n{text}\n')
        path.chmod(0o755)
        return log

    def __call__(self, script, *flags, **variables):
        """The finished process of a script of launch/."""
        path = ROOT / "launch" / script
        command = [sys.executable, path] if path.suffix == ".py" else [path]
        return subprocess.run(
            [*command, *flags],
            cwd=ROOT,
            env=os.environ | dict(PATH=str(self.bin), TMPDIR="/tmp") | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def golden(self, name, script, *flags):
        """What a script prints with --dry_run is what golden/NAME.txt has, to the letter."""
        done = self(script, *flags[:1], "--dry_run", *flags[1:])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (GOLDEN / f"{name}.txt").read_text()
        return done.stdout

    def refused(self, message, script, *flags):
        """A script ends with status 1, one line `error: ...` with `message`, and no output."""
        done = self(script, *flags)
        assert done.returncode == 1, done.stdout + done.stderr
        *_, last = done.stderr.splitlines()
        assert last.startswith("error: ") and message in last, done.stderr
        assert not done.stdout


@pytest.fixture
def stage(tmp_path):
    """Where a launch script runs."""
    return Stage(tmp_path)
