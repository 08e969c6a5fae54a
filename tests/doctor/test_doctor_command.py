"""The command from outside."""

import json
import subprocess
import sys

import pytest

from tests import runs


def doctor(*flags, devices=1):
    """Runs `python -m vit_ssl_jax.doctor` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vit_ssl_jax.doctor", *flags],
        cwd=runs.ROOT,
        env=runs.environment(devices),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_healthy_machine(tmp_path):
    """Of a recipe in bfloat16, with all checks."""
    flags = ["--config=configs/quickstart.py:mae", "--config.vit.dtype=bfloat16"]
    flags += [f"--config.{key}={value}" for key, value in runs.SMALL.items()]
    flags += [f"--workdir={tmp_path}/w", f"--json={tmp_path}/found.json"]
    done = doctor(*flags, devices=2)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert last.startswith("all is well, in ") and not (tmp_path / "w").exists()
    assert all(line.startswith("ok ") for line in lines)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ok"] and len(found["findings"]) == len(lines)
    names = [finding["name"] for finding in found["findings"]]
    wanted = "software host devices recipe kernels collective workdir checkpoint data"
    assert list(dict.fromkeys(names)) == wanted.split()
    for finding, line in zip(found["findings"], lines, strict=True):
        assert finding["ok"] and finding["text"] in line


def test_faults_end_with_status_1(tmp_path):
    """Without a recipe; the workdir is a file."""
    (tmp_path / "file").write_text("")
    done = doctor(f"--workdir={tmp_path}/file", f"--json={tmp_path}/found.json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: not ok: workdir (")
    assert "Traceback" not in done.stdout
    assert f"FAILED workdir     --workdir={tmp_path}/file can't be" in done.stdout
    assert "-      data        left out: give --config=configs/NAME.py" in done.stdout
    assert "-      collective  left out: there is one device" in done.stdout
    assert not json.loads((tmp_path / "found.json").read_text())["ok"]


@pytest.mark.slow
def test_a_recipe_that_doesnt_fit_the_devices_is_a_line(tmp_path):
    flags = ("--config=configs/quickstart.py", "--config.mesh.fsdp=4")
    done = doctor(
        *flags, "--config.data.name=folder", f"--config.data.dir={tmp_path}/no"
    )
    assert done.returncode == 1
    assert "error: not ok: recipe, data (" in done.stderr
    assert "FAILED recipe      config.mesh: " in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--confg=a.py"], "flag 'confg'. Did you mean: config"),
        (["--config=nope.py"], "error: nope.py doesn't exist"),
        (["--config.batch_size=8"], "error: "),
        (["--json=/nowhere/at/all"], "error: --json: /nowhere/at/all can't be written"),
        pytest.param(
            ["--json=/proc/x.json"],
            "error: --json: /proc/x.json can't be written",
            marks=pytest.mark.slow,
        ),
        (["--config=configs/eval_quickstart.py"], "judges checkpoints; doctor takes"),
        pytest.param(
            ["everything"],
            "error: unexpected argument 'everything'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_flags_are_one_message(flags, said):
    done = doctor(*flags)
    assert done.returncode == 1
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
