"""The Colab notebook: stored clean, made of calls that exist, and it runs."""

import ast
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from tests import runs
from tests.launch import notebooks
from tests.launch.notebooks import code, tags
from vit_ssl_jax import recipes

FILE = runs.ROOT / "launch" / "colab.ipynb"
TAGS = {"colab", "network", "parameters"}


@pytest.fixture(scope="module")
def notebook():
    """As it is stored."""
    return notebooks.read(FILE.name)


def python(cell):
    """A cell's code without what only IPython understands."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(cell.source)


def test_it_is_stored_valid_and_without_outputs(notebook):
    notebooks.check_clean(notebook, TAGS)


def test_every_cell_is_python_and_no_flag_is_read(notebook):
    for cell in code(notebook):
        tree = ast.parse(python(cell))
        compile(tree, "cell", "exec")
        assert "absl" not in cell.source and "FLAGS" not in cell.source
        if "colab" not in tags(cell):
            assert python(cell).strip() == cell.source.strip(), "IPython's own syntax"
            kinds = (ast.If, ast.For, ast.While, ast.FunctionDef, ast.Try, ast.With)
            assert not any(isinstance(node, kinds) for node in ast.walk(tree))


def test_only_cells_of_colab_install_and_they_keep_its_jax(notebook):
    (install,) = (cell for cell in code(notebook) if "pip install" in cell.source)
    assert tags(install) == {"colab"}
    assert "-c keep.txt" in install.source and "^(jax" in install.source
    assert "-U" not in install.source and "--upgrade" not in install.source


def test_the_methods_to_choose_from_are_all_of_the_recipe(notebook):
    (cell,) = (cell for cell in code(notebook) if "parameters" in tags(cell))
    line = next(x for x in cell.source.splitlines() if x.startswith("METHOD"))
    offered = ast.literal_eval(line.partition("# @param")[2].strip())
    assert sorted(offered) == sorted(
        name for (name,) in runs.arguments("pretext_cpu.py")
    )
    for name in offered:
        recipes.load(f"pretext_cpu.py:{name}")


def test_one_constant_says_what_is_installed(notebook):
    """At first the checkout that the notebook lies in; nobody's name stands in it."""
    (install,) = (cell for cell in code(notebook) if "pip install" in cell.source)
    constants = [x for x in install.source.splitlines() if re.match(r"[A-Z]+ = ", x)]
    name, value = constants[0].partition("  #")[0].split(" = ")
    assert len(constants) == 1 and install.source.endswith(f" {{{name}}}")
    assert (FILE.parent / ast.literal_eval(value) / "setup.py").exists()
    assert "OWNER" not in FILE.read_text() and "github.com" not in FILE.read_text()


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch, small_set):
    """Without the cells for Colab and the network, with few steps."""
    values = dict(STEPS=4, BANK=300, QUERIES=100, RUNS=str(tmp_path / "runs"))
    values |= dict(VARIANT="1x32x1/4", LARGER="1x32x1/8")
    values |= dict(SET="small", SET_DIR=str(small_set))
    for name, value in runs.environment(1).items():
        monkeypatch.setenv(name, value)
    # Three of the runs compile the same step.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    text, outputs = notebooks.execute(notebook, tmp_path, {"colab", "network"}, values)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    assert text.count("k-NN top-1") == 5 and "fewshot" in text
    assert "Warning" not in text and "can't be read" not in text
    assert "eval/pretext/top1" in text.partition("encoder: from")[2]  # fine-tuned
    names = {path.name for path in pathlib.Path(tmp_path / "runs").iterdir()}
    assert names == {"mae", "small_mae", "folder_mae", "digits_mae", "mae_finetuned"}


def png(rng):
    """A PNG of 32x32 random pixels, as a file."""
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture
def small_set(tmp_path):
    """The folder of a prepared set, called small, large enough for the evaluators."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def examples(count):
        return ((i, {"image": png(rng), "label": i % 3}) for i in range(count))

    with tfds.core.registered.skip_registration():

        class Small(tfds.core.GeneratorBasedBuilder):
            """A set for this test."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features_dict = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features_dict)

            def _split_generators(self, _):
                return {"train": examples(300), "test": examples(100)}

            def _generate_examples(self):
                raise NotImplementedError

    Small.name = "small"
    folder = tmp_path / "sets"
    Small(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder
