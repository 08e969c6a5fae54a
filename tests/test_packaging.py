"""What is built from the project runs elsewhere, on its own files."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string

import pytest

import vit_ssl_jax
from tests import runs

KEPT_OUT = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__")


def run(*command, cwd):
    """Runs a command as a user without our folder would; its output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XLA"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of the project and the wheel that pip makes of it."""
    top = tmp_path_factory.mktemp("built")
    shutil.copytree(runs.ROOT, top / "src", ignore=shutil.ignore_patterns(*KEPT_OUT))
    run(sys.executable, "setup.py", "-q", "sdist", f"-d{top}", cwd=top / "src")
    shutil.rmtree(top / "src")
    (source,) = top.glob("*.tar.gz")
    alone = "--no-deps", "--no-index", "--no-build-isolation"
    run(sys.executable, "-m", "pip", "wheel", "-q", *alone, source, cwd=top)
    (wheel,) = top.glob("*.whl")
    return source, wheel


def test_the_wheel_has_the_package_and_all_recipes_and_nothing_else(built):
    source, wheel = built
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"vit_ssl_jax-{vit_ssl_jax.__version__}.dist-info/"
    ours = {
        str(p.relative_to(runs.ROOT)) for p in runs.ROOT.glob("vit_ssl_jax/**/*.py")
    }
    recipes = {f"vit_ssl_jax/configs/{name}" for name in runs.CONFIGS}
    parts = ("page.html", "page.css", "page.js", "curves.js")
    page = {f"vit_ssl_jax/report/{name}" for name in parts}
    assert {
        name for name in names if not name.startswith(info)
    } == ours | recipes | page
    with tarfile.open(source) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "configs/quickstart.py"} <= kept
    assert not [name for name in kept if name.startswith("tests")]


def test_metadata(built):
    with zipfile.ZipFile(built[1]) as wheel:
        folder = f"vit_ssl_jax-{vit_ssl_jax.__version__}.dist-info"
        text = wheel.read(f"{folder}/METADATA").decode()
    data = message_from_string(text)
    assert data["Version"] == vit_ssl_jax.__version__
    assert data["Requires-Python"] == ">=3.11"
    assert data["License"] == "Apache-2.0"
    assert data["Description-Content-Type"] == "text/markdown"
    assert data.get_payload().startswith("# vit_ssl_jax")


@pytest.mark.slow
def test_the_installed_wheel_trains_judges_and_lists_its_commands(built, tmp_path):
    folder = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=tmp_path)
    python = folder / "bin" / "python"
    pip = sys.executable, "-m", "pip", "--python", python
    run(*pip, "install", "-q", "--no-deps", "--no-index", built[1], cwd=tmp_path)
    # What it needs is that of this environment; ours itself is not on that path.
    (site,) = folder.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "others.pth").write_text("\n".join(paths))
    where = run(
        python, "-c", "import vit_ssl_jax as v; print(v.__file__)", cwd=tmp_path
    )
    assert site in pathlib.Path(where.strip()).parents

    assert "python -m vit_ssl_jax.main" in run(
        python, "-m", "vit_ssl_jax", cwd=tmp_path
    )
    small = {k: v for k, v in runs.SMALL.items() if k != "data.name"} | {"steps": 3}
    flags = ["--config=configs/quickstart.py:mae", "--workdir=out"]
    flags += [f"--config.{key}={value}" for key, value in small.items()]
    said = run(python, "-m", "vit_ssl_jax.main", *flags, cwd=tmp_path)
    assert runs.metrics(tmp_path / "out")[-1]["step"] == 3, said
    suite = "--config=configs/eval_quickstart.py", "--checkpoint=out"
    run(python, "-m", "vit_ssl_jax.evaluate", *suite, cwd=tmp_path)
    assert list(tmp_path.glob("out/evaluations/*.json"))


def test_what_plans_for_gpus_takes_is_small():
    """The compiler alone: no CUDA package, and nothing of it in the base install."""
    needs = importlib.metadata.requires("vit_ssl_jax")
    extra = [line.split(";")[0] for line in needs if 'extra == "plan-gpu"' in line]
    assert [name.strip() for name in extra] == ["jax-cuda13-plugin"]
    assert not any("cuda" in line for line in needs if "extra" not in line)
