"""Batches: from (seed, step) alone, every image once an epoch, broken files."""

import itertools
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data.pipeline import eval_batches, train_batches
from vit_ssl_jax.data.sources import Source, open_source
from vit_ssl_jax.errors import UserError

CENTRE = {"size": (8, 12), "resize": 12, "interpolation": "bilinear"}


def train(source, steps, batch_size=8, seed=0, **settings):
    settings = {"crop": (0.2, 1.0), "ratio": (3 / 4, 4 / 3), "flip": True} | settings
    batches = train_batches(
        source, batch_size=batch_size, seed=seed, **CENTRE, **settings
    )
    return list(itertools.islice(batches, steps))


def numbered(length, broken=()):
    """Images all of whose pixels are their number modulo 256; some are no images."""

    def read(i):
        if i in broken:
            return b"no image", i % 3
        return np.full((16, 16, 3), i % 256, np.uint8), i % 3

    return Source("numbers", length, read, lambda i: f"number {i}", ("a", "b", "c"))


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.fixture(scope="module")
def fake():
    return open_source("fake", "", "train[:50]")


def test_batches_have_the_promised_form(fake):
    (batch,) = train(fake, 1)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((8, 8, 12, 3), np.uint8),
        "label": ((8,), np.int32),
        "id": ((8,), np.int32),
    }
    for i, label in zip(batch["id"], batch["label"], strict=True):
        assert fake.read(i)[1] == label


def test_batches_depend_on_the_seed_and_not_on_threads(fake):
    ours = train(fake, 10, threads=1)
    assert_equal(train(fake, 10, threads=4, prefetch=5), ours)
    other = train(fake, 10, seed=1)
    assert any((a["id"] != b["id"]).any() for a, b in zip(ours, other, strict=True))


@pytest.mark.parametrize("start", [1, 6, 7, 13])
def test_starting_anywhere_is_going_on(fake, start):
    """50 images in batches of 8: epochs end within batches 6, 12 and 18."""
    assert_equal(train(fake, 20 - start, start_step=start), train(fake, 20)[start:])


def test_starting_late_reads_nothing_earlier():
    reads = []
    source = numbered(50)
    counted = Source("n", 50, lambda i: reads.append(i) or source.read(i), str)
    train(counted, 1, start_step=10**9, threads=1)
    assert len(reads) < 100


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("batch_size", [8, 80])
def test_shards_put_together_are_the_batch(fake, count, batch_size):
    whole = train(fake, 5, batch_size, start_step=3)
    shards = [
        train(fake, 5, batch_size, start_step=3, shard=(i, count)) for i in range(count)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*shards, strict=True)
    ]
    assert_equal(joined, whole)


def test_each_epoch_has_every_image_once_in_another_order(fake):
    ids = np.concatenate([b["id"] for b in train(fake, 25, batch_size=8)])
    epochs = ids.reshape(4, 50)
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_augmentation_differs_between_epochs(fake):
    batches = train(fake, 2, batch_size=50)
    first, second = (b["image"][np.argsort(b["id"])] for b in batches)
    assert (first != second).any(axis=(1, 2, 3)).mean() > 0.9


def test_a_batch_may_be_larger_than_the_source():
    for length in (1, 3):
        (batch,) = train(numbered(length), 1, batch_size=9)
        counts = np.bincount(batch["id"], minlength=length)
        assert counts.tolist() == [9 // length] * length


def test_flip_without_crop_is_a_mirror_half_of_the_time():
    ramp = np.tile(np.arange(12, dtype=np.uint8)[:, None], (12, 1, 3))
    source = Source("ramp", 1, lambda i: (ramp, -1), str)
    (batch,) = train(source, 1, batch_size=300, crop=None)
    falling = batch["image"][:, 0, 0, 0] > batch["image"][:, 0, -1, 0]
    assert 120 < falling.sum() < 180
    (batch,) = train(source, 1, batch_size=300, crop=None, flip=False)
    np.testing.assert_array_equal(batch["image"], np.stack([ramp[2:10]] * 300))


def test_batch_size_must_split(fake):
    with pytest.raises(UserError, match="batch_size 8 .* 3 processes"):
        train(fake, 1, shard=(0, 3))


def test_broken_images_are_replaced_by_the_next_and_reported_once(caplog):
    source = numbered(20, broken={3, 4, 19})
    with caplog.at_level(logging.WARNING):
        batches = train(source, 10, batch_size=6)
    ids = np.concatenate([b["id"] for b in batches])[:20]
    assert sorted(ids) == sorted([*set(range(20)) - {3, 4, 19}, 5, 5, 0])
    values = np.concatenate([b["image"][:, 0, 0, 0] for b in batches])[:20]
    np.testing.assert_array_equal(values, ids)
    assert source.broken == {3, 4, 19}
    assert len(caplog.records) == 1
    assert "number " in caplog.text
    assert_equal(train(numbered(20, broken={3, 4, 19}), 10, batch_size=6), batches)


def test_truncated_and_missing_files_are_broken(tmp_path):
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    cut = tmp_path / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "2.jpg").write_bytes(b"")
    source = open_source("folder", str(tmp_path), "train")
    (tmp_path / "3.jpg").unlink()
    train(source, 2)
    names = {source.where(i).rsplit("/")[-1] for i in source.broken}
    assert names == {"1.jpg", "2.jpg", "3.jpg"}


def test_only_broken_images_end_training():
    with pytest.raises(UserError, match="all 5 images of numbers"):
        train(numbered(5, broken=range(5)), 1)
    with pytest.raises(UserError, match="100 images in a row .* numbers"):
        train(numbered(400, broken=range(390)), 5, start_step=2, threads=1)


@pytest.mark.parametrize("batch_size", [1, 8, 25, 64])
def test_evaluation_goes_once_in_order(batch_size):
    batches = list(eval_batches(numbered(25), batch_size=batch_size, **CENTRE))
    assert {len(b["image"]) for b in batches} == {batch_size}
    joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    valid = joined["valid"]
    assert (valid.dtype, valid.sum()) == (bool, 25)
    np.testing.assert_array_equal(joined["id"][valid], range(25))
    np.testing.assert_array_equal(joined["image"][valid][:, 3, 4, 0], range(25))
    np.testing.assert_array_equal(joined["label"][valid], np.arange(25) % 3)


PARTS = [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]  # rows of hosts that aren't in a row


def put_together(parts):
    """Batches of which every process has made its PARTS."""
    for batches in zip(*parts, strict=True):
        order = np.argsort(np.concatenate(PARTS))
        yield {
            key: np.concatenate([b[key] for b in batches])[order] for key in batches[0]
        }


def test_rows_that_several_make_are_the_whole_batches():
    """Of 28 images in batches of 12, the last of which is filled up; one is broken."""
    how = dict(batch_size=12, **CENTRE)
    whole = list(eval_batches(numbered(28, {4}), **how))
    parts = [list(eval_batches(numbered(28, {4}), rows=rows, **how)) for rows in PARTS]
    assert len(whole) == 3 and sum(b["valid"].sum() for b in whole) == 27
    assert_equal(whole, list(put_together(parts)))


def test_rows_of_training_batches_are_the_whole_ones():
    how = dict(flip=True, crop=(0.2, 1.0), ratio=(0.75, 1.33), seed=1, start_step=2)
    how |= dict(batch_size=12, **CENTRE)
    parts = [train_batches(numbered(40), rows=rows, **how) for rows in PARTS]
    firsts = [[next(part) for _ in range(3)] for part in parts]
    whole = itertools.islice(train_batches(numbered(40), **how), 3)
    assert_equal(list(whole), list(put_together(firsts)))


def test_evaluation_drops_broken_images():
    source = numbered(10, broken={0, 9})
    (batch,) = eval_batches(source, batch_size=16, **CENTRE)
    assert batch["id"][batch["valid"]].tolist() == list(range(1, 9))
    assert source.broken == {0, 9}
    with pytest.raises(UserError, match="all 4 images"):
        list(eval_batches(numbered(4, broken=range(4)), batch_size=2, **CENTRE))


def test_errors_of_our_own_are_not_taken_for_broken_images():
    def read(i):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        train(Source("buggy", 5, read, str), 1)


def test_a_plain_script_ends_with_iterators_left_open():
    code = (
        "from vit_ssl_jax.data import pipeline, sources\n"
        "source = sources.open_source('fake', '', 'train')\n"
        "how = dict(batch_size=64, size=(64, 64), resize=64, interpolation='bicubic')\n"
        "train = pipeline.train_batches(source, crop=(0.2, 1.0), ratio=(0.75, 1.33),\n"
        "    flip=True, seed=0, threads=4, **how)\n"
        "test = pipeline.eval_batches(source, **how)\n"
        "next(train), next(test)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert ended.returncode == 0
