"""Tars read in place: the images and labels that unpacking them would give."""

import tarfile

import numpy as np
import pytest

from tests.data.test_prepare import CLASSES, pack, picture
from vit_ssl_jax.data import decoding, pipeline
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError


def contents(directory, split="train", **reading):
    """`{number in the pixels: class}` of a split."""
    source = open_source("tars", str(directory), split, **reading)
    found = {}
    for i in range(len(source)):
        image, label = source.read(i)
        name = source.class_names[label] if label >= 0 else ""
        found[int(decoding.decode(image)[0, 0, 0])] = name
    assert len(found) == len(source)
    return found


def of_classes(top, begin, count):
    """Files `CLASS/I.png` and what they hold."""
    files, wanted = {}, {}
    for c, name in enumerate(CLASSES):
        for i in range(count):
            number = begin + 10 * c + i
            files[f"{top}{name}/{i}.png"] = picture(number)
            wanted[number] = name
    return files, wanted


def test_splits_and_classes_are_those_of_the_paths(tmp_path):
    train, in_train = of_classes("photos/train/", 0, 5)
    test, in_test = of_classes("photos/test/", 100, 2)
    file = pack(tmp_path / "photos.tar", train | test | {"photos/README": b"hi"})
    assert contents(file) == in_train
    assert contents(file, "test") == in_test
    assert contents(file, labels=False) == dict.fromkeys(in_train, "")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    unpacked = open_source("folder", str(tmp_path / "out"), "train")
    inside = open_source("tars", str(file), "train")
    for i in range(len(inside)):  # in the same order
        assert inside.read(i) == unpacked.read(i)


def test_webdatasets_shards_are_one_set(tmp_path):
    """Each `KEY.png` with its `KEY.cls`, shards of a split by their names."""
    for split, begin in (("train", 0), ("val", 100)):
        for shard in range(2):
            files = {}
            for i in range(4):
                number = begin + 10 * shard + i
                files[f"{number:05}.png"] = picture(number)
                files[f"{number:05}.cls"] = str(number % 3).encode()
            pack(tmp_path / f"photos-{split}-{shard:06}.tar", files)
    wanted = {10 * s + i: str((10 * s + i) % 3) for s in range(2) for i in range(4)}
    assert contents(tmp_path) == wanted
    assert set(contents(tmp_path, "val")) == {100 + n for n in wanted}


def test_worker_processes_read_them_alike(tmp_path):
    files, _ = of_classes("", 0, 5)
    source = open_source("tars", str(pack(tmp_path / "x.tar", files)), "train")
    how = dict(size=(8, 8), resize=8, crop=(), ratio=(1, 1), interpolation="bilinear")
    found = []
    for processes in (0, 1):
        batches = pipeline.train_batches(
            source, batch_size=5, seed=0, flip=False, processes=processes, **how
        )
        found.append(next(batches))
        batches.close()
    for key in found[0]:
        np.testing.assert_array_equal(found[0][key], found[1][key])


def test_an_archive_that_was_cut_since_gives_broken_images(tmp_path):
    files, _ = of_classes("", 0, 5)
    file = pack(tmp_path / "x.tar", files)
    source = open_source("tars", str(file), "train")
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(OSError, match="is shorter than it was"):
        [source.read(i) for i in range(len(source))]


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(UserError, match="tars need a directory"):
        contents("")
    with pytest.raises(UserError, match="tars in a store aren't read in place"):
        contents("gs://bucket/tars")
    with pytest.raises(UserError, match="doesn't exist"):
        contents(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no tar and holds none; for image files"):
        contents(tmp_path)
    pack(tmp_path / "x.tar", {"a.txt": b"a"})
    with pytest.raises(UserError, match="no images in"):
        contents(tmp_path)
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:600])
    with pytest.raises(UserError, match="x.tar"):
        contents(tmp_path)
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="x.tar.gz is packed.* unpack"):
        contents(tmp_path)
    pack(tmp_path / "y.tar", {"../a.png": picture(1)})
    with pytest.raises(UserError, match="leads out of the archive"):
        contents(tmp_path / "y.tar")
