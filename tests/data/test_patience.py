"""Images that can't be read for a while: waited for where all are lost, else left out."""

import dataclasses
import itertools
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax.data import patience, pipeline
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError


@pytest.fixture
def mount(tmp_path):
    """A folder of twenty images of two classes."""
    rng = np.random.default_rng(0)
    for i in range(20):
        folder = tmp_path / "mount" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "mount"


def open_folder(mount, seconds=30.0):
    source = open_source("folder", str(mount), "train")
    return dataclasses.replace(source, retry_seconds=seconds)


def batches(source, count, **how):
    size = dict(size=(8, 8), resize=8, interpolation="bilinear", crop=(), ratio=(1, 1))
    made = pipeline.train_batches(
        source, batch_size=4, seed=0, flip=False, **size, **how
    )
    return list(itertools.islice(made, count))


@pytest.mark.parametrize("processes", runs.mostly_slow([0, 1], 0))
def test_batches_go_on_as_if_nothing_was_when_the_mount_is_back(
    mount, caplog, monkeypatch, processes
):
    monkeypatch.setattr(patience, "EVERY", 0.1)
    wanted = batches(open_folder(mount), 10, processes=0)
    source = open_folder(mount)
    away = mount.with_name("away")
    mount.rename(away)
    timer = threading.Timer(3.0, away.rename, [mount])
    timer.start()
    got = batches(source, 10, processes=processes)
    for a, b in zip(got, wanted, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert not source.broken
    if not processes:  # a worker says it on its own
        assert caplog.text.count("waiting up to 30 s for it to come back") == 1
        assert caplog.text.count("can be read again") == 1


def test_a_mount_that_stays_away_is_one_message(mount, monkeypatch):
    monkeypatch.setattr(patience, "EVERY", 0.1)
    source = open_folder(mount, seconds=0.5)
    mount.rename(mount.with_name("away"))
    with pytest.raises(UserError, match=r"can't be read any more .*for 0.5 s.*mount"):
        batches(source, 1)


def test_one_file_that_is_gone_is_a_broken_image(mount):
    source = open_folder(mount)
    os.remove(source.where(3))
    begun = time.monotonic()
    batches(source, 5)
    assert time.monotonic() - begun < 20
    assert source.broken == {3}


def test_files_without_the_right_to_read_are_not_waited_for(mount):
    source = open_folder(mount)

    def refuse(i):
        raise PermissionError(13, "Permission denied", source.where(i))

    refused = dataclasses.replace(source, read=refuse)
    with pytest.raises(PermissionError):
        patience.read(refused, 0)


def test_a_single_image_is_broken_at_once(mount):
    alone = open_folder(mount).part(0, 1)
    mount.rename(mount.with_name("away"))
    with pytest.raises(FileNotFoundError):
        patience.read(alone, 0)
