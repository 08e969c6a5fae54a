"""Recipes loaded from Python: as on the command line, with the same refusals."""

import pytest

from tests import runs
from vit_ssl_jax import recipes
from vit_ssl_jax.errors import UserError


def test_a_recipe_is_the_one_of_the_command_line():
    wanted = runs.load("quickstart.py", "mae")
    for name in ("quickstart.py:mae", "configs/quickstart.py:mae"):
        assert recipes.load(name).to_dict() == wanted.to_dict()
    assert recipes.load("quickstart.py").recipe == "quickstart:ijepa"


def test_it_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.load("mae_vitl.py").method.name == "mae"


def test_a_file_of_your_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from ml_collections import ConfigDict\n"
    text += "def get_config(): return ConfigDict({'mine': 1})\n"
    (tmp_path / "quickstart.py").write_text(text)
    assert recipes.load("quickstart.py").to_dict() == {"mine": 1}
    assert recipes.load(str(tmp_path / "quickstart.py"), mine=2).mine == 2


def test_values_are_changed_by_dotted_key_and_keep_their_type():
    changes = {"vit.variant": "S/16", "optim.lr": 1, "data.size": [64, 64]}
    config = recipes.load("quickstart.py", batch_size=64, **changes)
    assert (config.batch_size, config.vit.variant) == (64, "S/16")
    assert config.data.size == (64, 64)
    assert type(config.optim.lr) is float
    with pytest.raises(AttributeError):
        config.anything = 1


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("quickstrat.py", {}, "did you mean quickstart.py"),
        ("relvit_cifar10_finetune.py", {}, "did you mean relvit_finetune.py"),
        ("nothing", {}, r"did you mean \S+ or \S+ or \S+ or \S+ or \S+\.py\?$"),
        ("quickstart.py:maee", {}, "quickstart.py:maee: choose one of"),
        ("mae_vitl.py:x", {}, "mae_vitl.py takes no argument, and 'x'"),
        ("quickstart.py", {"batchsize": 1}, r"no key batchsize. Did you mean batch_si"),
        ("quickstart.py", {"optim.lrr": 1}, r"no key optim.lrr. Did you mean optim.lr"),
        ("quickstart.py", {"seed.x": 1}, "no key seed.x$"),
        ("quickstart.py", {"batch_size": "64"}, "config.batch_size: .*int"),
        ("quickstart.py", {"batch_size": True}, "config.batch_size: give a number"),
        ("quickstart.py", {"vit": 3}, "config.vit: "),
    ],
)
def test_what_cannot_be_is_explained(name, changes, said):
    with pytest.raises(UserError, match=said):
        recipes.load(name, **changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no get_config"),
        ("def get_config(:", "x.py can't be loaded: SyntaxError: invalid syntax"),
        ("import nothing_here", "can't be loaded: ModuleNotFoundError: No module"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, said):
    (tmp_path / "x.py").write_text(text)
    with pytest.raises(UserError, match=said):
        recipes.load(tmp_path / "x.py")


def test_every_recipe_is_listed_once_with_what_it_is():
    groups = recipes.listed()
    names = [file.name for files in groups.values() for file in files]
    assert sorted(names) == sorted(runs.CONFIGS)
    assert [f.name for f in groups["start here"]] == ["own.py", "quickstart.py"]
    assert all(recipes.describe(f) for files in groups.values() for f in files)
