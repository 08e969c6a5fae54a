"""What the command line does, called from Python: no flags, not even the main thread."""

import ast
import concurrent.futures

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests import runs
from tests.test_imports import FILES, name
from vit_ssl_jax import evaluate, pictures, plan, recipes, train
from vit_ssl_jax.errors import UserError

TINY = {
    "steps": 4,
    "batch_size": 16,
    "vit.variant": "1x16x2/8",
    "method.decoder_width": 16,
    "health.every": 0,
    "pictures.every_epochs": 0.0,
    "evals.linear.every_epochs": -1.0,
}
FLAGS = {"command.py", "main.py", "__main__.py", "matrix.py"}  # the commands


def in_thread(function, *args, **kwargs):
    """Calls in a thread, as notebooks may, where no flags were parsed."""
    assert not flags.FLAGS.is_parsed()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args, **kwargs).result()


@pytest.fixture(scope="module")
def data():
    """Noisy images of four colours, which are their classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [150, 150, 0]])
    images = colours[labels][:, None, None] + rng.integers(0, 50, (96, 20, 24, 3))
    part = lambda a, b: {"image": np.uint8(images[a:b]), "label": labels[a:b]}
    return {"train": part(0, 64), "test": part(64, 96)}


@pytest.fixture(scope="module")
def config():
    """A recipe with a name, made small."""
    return recipes.load("quickstart.py:mae", **TINY)


@pytest.fixture(scope="module")
def trained(data, config, tmp_path_factory):
    """The workdir of a run on the data, and its summary."""
    workdir = tmp_path_factory.mktemp("run")
    before = config.to_dict()
    summary = in_thread(train.train, config, str(workdir), data)
    assert config.to_dict() == before
    return workdir, summary


def test_a_run_on_given_data_ends_with_its_table(trained):
    workdir, summary = trained
    assert set(summary["knn"]) == {"learned", "untrained", "raw_pixels"}
    assert summary["knn"]["raw_pixels"] == 1.0  # so labels are their images'
    assert runs.metrics(workdir)[-1]["step"] == 4


def test_it_goes_on_only_with_its_data(trained):
    config = recipes.load("quickstart.py:mae", **TINY, **{"data.name": "given"})
    with pytest.raises(UserError, match="'given' is data from Python; give it again"):
        train.train(config, trained[0])


def test_pictures_of_a_run(trained, data):
    rows = in_thread(pictures.draw, trained[0], "test", data=data, count=3)
    assert [*rows][:2] == ["original", "masked"] and len(rows) > 4
    for row in rows.values():
        assert row.shape == (96, 3 * 98 - 2, 3) and row.dtype == np.uint8
        assert (row[:, 96:98] == 255).all()
    sheet = pictures.sheet(rows)
    assert sheet.size == (3 * 98 - 2, len(rows) * (96 + 16))
    np.testing.assert_array_equal(np.asarray(sheet)[14:110], rows["original"])
    again = pictures.draw(trained[0] / "checkpoints" / "4", "test", data=data, count=3)
    other = pictures.draw(trained[0], "test", data=data, count=3, seed=1)
    np.testing.assert_array_equal(again["masked"], rows["masked"])
    assert (other["masked"] != rows["masked"]).any()


def test_pictures_of_images_at_hand(trained, tmp_path):
    """A list, and the folder of the same images, in the order of their names."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    rows = pictures.draw(trained[0], images=[images[0], tmp_path / "1.png", images[2]])
    same = pictures.draw(trained[0], images=tmp_path, count=3)
    for word, row in rows.items():
        np.testing.assert_array_equal(same[word], row)
    for i, image in enumerate(images):
        shown = rows["original"][::3, 98 * i : 98 * i + 96 : 3]
        np.testing.assert_array_equal(shown, image)
    with pytest.raises(UserError, match="count=0"):
        pictures.draw(trained[0], images=images, count=0)
    with pytest.raises(UserError, match="nothing.png can't be read"):
        pictures.draw(trained[0], images=[tmp_path / "nothing.png"])


def test_pictures_need_the_data_and_a_run(trained, data, tmp_path):
    with pytest.raises(UserError, match="give it again"):
        pictures.draw(trained[0])
    with pytest.raises(UserError, match="no split 'validation'"):
        pictures.draw(trained[0], "validation", data=data)
    with pytest.raises(UserError, match="count=0: the split has"):
        pictures.draw(trained[0], data=data, count=0)
    with pytest.raises(UserError, match="no checkpoint"):
        pictures.draw(tmp_path, data=data)


def test_a_finished_run_is_evaluated(trained):
    changes = {"tasks.embedded.train": "train[:60]", "tasks.embedded.test": "test[:40]"}
    suite = recipes.load("eval_quickstart.py", **changes).unlock()
    suite.evals = {"knn": {**suite.evals.knn.to_dict(), "k": (10,)}}
    said = []
    found = in_thread(evaluate.evaluate, suite, trained[0], say=said.append)
    (results,) = found.values()
    assert list(results) == ["embedded/knn/k10_T0.07_mean_standardized/top1"]
    assert "| metric |" in said[-1]


def test_a_run_is_planned(config):
    found = in_thread(plan.plan, config)
    assert found["fits"] and found["total_bytes"] > 0 and found["batch_size"] == 16


def test_flags_are_the_commands_own():
    """So that nothing that a notebook calls reads one."""
    readers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(n.startswith(("absl.flags", "absl.app")) for n in names):
                readers.add(name(path))
            if any("config_flags" in n for n in names):
                readers.add(name(path))
    assert "vit_ssl_jax/command.py" in readers
    assert {path.rsplit("/", 1)[1] for path in readers} <= FLAGS
