"""The notebook that adds a method: stored clean, and it runs, on a copy of the package."""

import ast
import re
import shutil

import pytest

from tests import runs
from tests.launch import notebooks
from tests.launch.notebooks import code, tags

FILE = runs.ROOT / "launch" / "own_method.ipynb"
WRITE = "%%writefile"


@pytest.fixture(scope="module")
def notebook():
    """As it is stored."""
    return notebooks.read(FILE.name)


def method_file(notebook):
    """The path and the text of the file that the notebook writes."""
    (cell,) = (cell for cell in code(notebook) if cell.source.startswith(WRITE))
    first, _, text = cell.source.partition("\n")
    return first.removeprefix(WRITE).strip(), text


def test_it_is_stored_valid_and_without_outputs(notebook):
    notebooks.check_clean(notebook, {"colab", "parameters"})


def test_cells_but_the_installation_and_the_file_are_python(notebook):
    for cell in code(notebook):
        if "colab" not in tags(cell) and not cell.source.startswith(WRITE):
            ast.parse(cell.source)


def test_the_file_is_a_method_as_the_house_writes_them(notebook):
    """One file in the folder of the methods, of the same parts as the others."""
    path, text = method_file(notebook)
    assert re.fullmatch(r"{FOLDER}/[a-z]+\.py", path)
    names = {
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert {"Config", "make_views", "make_targets", "loss_fn", "draw", "make"} <= names
    assert len(text.splitlines()) <= 250


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    """With few steps, and no file of the repository touched."""
    for folder in ("vit_ssl_jax", "configs"):
        shutil.copytree(runs.ROOT / folder, tmp_path / "copy" / folder)
    values = dict(STEPS=4, BANK=300, QUERIES=100, VARIANT="1x32x1/4")
    for name, value in runs.environment(1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "copy"))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    text, outputs = notebooks.execute(notebook, tmp_path, {"colab"}, values)
    assert str(tmp_path / "copy") in text, "the repository's own package was used"
    assert re.search(r"^0\.0$", text, re.MULTILINE) and re.search(
        r"^0\.5$", text, re.MULTILINE
    )
    assert "model: thumbnail" in text and text.count("k-NN top-1") == 2
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not (runs.ROOT / "vit_ssl_jax" / "methods" / "thumbnail.py").exists()
