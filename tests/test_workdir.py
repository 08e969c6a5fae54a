"""The folder of a run, where it can't be written."""

import importlib
import sys

import pytest

from vit_ssl_jax import checkpoint, collected, workdir
from vit_ssl_jax.errors import UserError


def test_a_bucket_without_gcsfs_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    loaded = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(loaded, "gs", raising=False)
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        workdir.open_workdir("gs://bucket/run")
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        checkpoint.find_folder("gs://bucket/run")
    with pytest.raises(UserError, match="gs://bucket/run can't be .* install gcsfs"):
        collected.find_folders(["gs://bucket/run"])


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/run can't be written .Not a directory"):
        workdir.open_workdir(tmp_path / "file" / "run")


def test_only_what_has_an_address_is_in_a_store(tmp_path):
    assert collected.is_stored("gs://bucket/run")
    assert not collected.is_stored(tmp_path)
    assert workdir.find("runs/one").is_absolute()
