"""The launch scripts as programs: they parse, and shellcheck has nothing to say."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
SHELLCHECK = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))


def test_there_are_scripts():
    names = {script.name for script in SCRIPTS}
    assert names == {
        "gke.sh",
        "pod.sh",
        "shell.sh",
        "slurm.sh",
        "start.sh",
        "tpu_vm.sh",
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_bash_can_read_it(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().count("\n") <= 250


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_is_content(script):
    assert SHELLCHECK, "pip install -e '.[test]' brings shellcheck"
    command = [SHELLCHECK, "-x", script.relative_to(ROOT)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_gets_all_that_it_copies():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    copied = [word for x in lines if x.startswith("COPY ") for word in x.split()[1:-1]]
    assert {"setup.py", "vit_ssl_jax", "configs", "launch"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert lines[-1] == 'ENTRYPOINT ["bash", "launch/start.sh"]'
