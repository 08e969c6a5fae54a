"""The folder of a run, where it can't be written."""

import importlib
import sys

import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.results import runs
from vit_ssl_jax.workdir import folder, restore


def test_a_bucket_without_gcsfs_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    loaded = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(loaded, "gs", raising=False)
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        folder.open_workdir("gs://bucket/run")
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        restore.find_folder("gs://bucket/run")
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        runs.find_folders(["gs://bucket/run"])


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/run can't be written .Not a directory"):
        folder.open_workdir(tmp_path / "file" / "run")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="config.json is a folder there"):
        folder.open_workdir(tmp_path)


def test_only_what_has_an_address_is_in_a_store(tmp_path):
    assert folder.is_stored("gs://bucket/run")
    assert not folder.is_stored(tmp_path)
    assert folder.find("runs/one").is_absolute()
