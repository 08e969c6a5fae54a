"""Sources: what is found, how it is labelled, and what a wrong request says."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import embedded
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError


def save(path, value=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def places(source):
    return {source.where(i) for i in range(len(source))}


def labels_by_class(source):
    """Class folder -> the labels of its images."""
    found = {}
    for i in range(len(source)):
        found.setdefault(source.where(i).split("/")[-2], set()).add(source.read(i)[1])
    return found


def test_flat_folder_is_recursive_and_unlabelled(tmp_path):
    names = ["a.JPG", "b.jpeg", "deep/er/c.Png", "d.webp", "e.bmp", "f.tiff", "g.gif"]
    made = {str(save(tmp_path / name)) for name in names}
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / "._a.jpg")
    save(tmp_path / ".cache" / "x.jpg")
    source = open_source("folder", str(tmp_path), "train")
    assert places(source) == made
    assert source.num_classes == 0
    assert {source.read(i)[1] for i in range(len(source))} == {-1}


def test_class_folders_give_sorted_labels(tmp_path):
    for name in ("dog", "ant", "cat"):
        for i in range(4):
            save(tmp_path / name / f"{i}.png")
    source = open_source("folder", str(tmp_path), "train")
    assert source.class_names == ("ant", "cat", "dog")
    assert labels_by_class(source) == {"ant": {0}, "cat": {1}, "dog": {2}}
    flat = open_source("folder", str(tmp_path), "train", labels=False)
    assert (len(flat), flat.num_classes, flat.read(0)[1]) == (12, 0, -1)


def test_classes_keep_their_number_where_others_are_absent(tmp_path):
    for name in ("train/a/1", "train/b/1", "train/c/1", "val/b/1", "val/c/1"):
        save(tmp_path / f"{name}.png")
    (tmp_path / "val" / "empty").mkdir()
    source = open_source("folder", str(tmp_path), "val")
    assert source.class_names == ("a", "b", "c")
    assert labels_by_class(source) == {"b": {1}, "c": {2}}


def test_val_and_validation_are_the_same_split(tmp_path):
    save(tmp_path / "train" / "1.png")
    made = save(tmp_path / "val" / "2.png")
    assert places(open_source("folder", str(tmp_path), "validation")) == {str(made)}


def test_what_a_folder_leaves_out_is_among_the_notes(tmp_path):
    for name in ("a/1.png", "b/1.png", "2.png"):
        save(tmp_path / name)
    source = open_source("folder", str(tmp_path), "train")
    assert (len(source), source.num_classes) == (2, 2)
    assert "2.png" in source.notes[0]


def test_folder_order_is_fixed_and_slices_are_mixed(tmp_path):
    for name in ("a", "b"):
        for i in range(30):
            save(tmp_path / name / f"{i}.png")
    source = open_source("folder", str(tmp_path), "train")
    again = open_source("folder", str(tmp_path), "train")
    order = [source.where(i) for i in range(60)]
    assert order == [again.where(i) for i in range(60)]
    half = open_source("folder", str(tmp_path), "train[:50%]")
    counts = np.bincount([half.read(i)[1] for i in range(30)])
    assert counts.min() > 8


@pytest.mark.parametrize(
    ("split", "first", "length"),
    [
        ("train", 0, 1024),
        ("train[:10%]", 0, 102),
        ("train[10%:]", 102, 922),
        ("train[100:200]", 100, 100),
        ("train[-24:]", 1000, 24),
        ("train[:-25%]", 0, 768),
    ],
)
def test_slices(split, first, length):
    whole, part = open_source("fake", "", "train"), open_source("fake", "", split)
    assert len(part) == length
    np.testing.assert_array_equal(part.read(0)[0], whole.read(first)[0])
    last = first + length - 1
    np.testing.assert_array_equal(part.read(length - 1)[0], whole.read(last)[0])
    assert part.where(0) == whole.where(first)


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train[:3]+train[1000:1003]", [0, 1, 2, 1000, 1001, 1002]),
        ("train[-2:] + train[:2]", [1022, 1023, 0, 1]),
        ("train[:1]+train[:1]+train[5:6]", [0, 0, 5]),
    ],
)
def test_sums_of_slices_in_their_order(split, numbers):
    whole, parts = open_source("fake", "", "train"), open_source("fake", "", split)
    assert len(parts) == len(numbers)
    assert parts.class_names == whole.class_names
    for i, number in enumerate(numbers):
        np.testing.assert_array_equal(parts.read(i)[0], whole.read(number)[0])
        assert parts.read(i)[1] == whole.read(number)[1]
        assert parts.where(i) == whole.where(number)


def test_sums_of_splits():
    train, test = (open_source("fake", "", name) for name in ("train", "test"))
    both = open_source("fake", "", "train+test[:10]")
    assert (len(both), both.name) == (1034, "fake 'train' and fake 'test'")
    np.testing.assert_array_equal(both.read(1023)[0], train.read(1023)[0])
    np.testing.assert_array_equal(both.read(1024)[0], test.read(0)[0])
    both.broken.add(3)
    assert not open_source("fake", "", "train+test[:10]").broken
    embedded_both = open_source("embedded", "", "train[:2]+test[:2]", labels=False)
    assert (embedded_both.num_classes, embedded_both.read(3)[1]) == (0, -1)


def test_sums_name_the_part_that_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"split 'train\[2000:\]' is images 2000 to"):
        open_source("fake", "", "train[:10]+train[2000:]")
    with pytest.raises(UserError, match="split '' isn't understood"):
        open_source("fake", "", "train[:10]+")
    with pytest.raises(UserError, match="embedded has no split 'exam'"):
        open_source("embedded", "", "train+exam")
    for name in ("train/a/1", "train/b/1", "test/1"):
        save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"different classes \(2 and 0 of them\)"):
        open_source("folder", str(tmp_path), "train+test")
    assert len(open_source("folder", str(tmp_path), "train+test", labels=False)) == 3


@pytest.mark.parametrize("split", ["train[5:5]", "train[:2000]", "train[9:3]"])
def test_slices_outside_raise(split):
    with pytest.raises(UserError, match="1024"):
        open_source("fake", "", split)


@pytest.mark.parametrize(
    "split", ["", "train[", "train[1]", "train[a:b]", "a[:1][:2]", "a+b[:1"]
)
def test_malformed_splits_raise(split):
    with pytest.raises(UserError, match="isn't understood"):
        open_source("fake", "", split)


def test_folder_errors_name_the_way_out(tmp_path):
    with pytest.raises(UserError, match="needs a directory"):
        open_source("folder", "", "train")
    with pytest.raises(UserError, match="doesn't exist"):
        open_source("folder", str(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match="is a file"):
        open_source("folder", str(save(tmp_path / "x" / "1.png")), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        open_source("folder", str(tmp_path / "empty"), "train")
    with pytest.raises(UserError, match="all of it is split 'train'"):
        open_source("folder", str(tmp_path / "x"), "test")
    save(tmp_path / "y" / "train" / "1.png")
    save(tmp_path / "y" / "val" / "1.png")
    with pytest.raises(UserError, match="split folders are train, val"):
        open_source("folder", str(tmp_path / "y"), "test")


def test_embedded_photographs_as_a_folder(tmp_path):
    """Parts of each, whole pixels of it, in a folder of its name."""
    import skimage.data

    top = embedded.write_folder(str(tmp_path / "photos"), size=48, per_class=2)
    source = open_source("folder", top, "train")
    assert (len(source), source.class_names) == (26, tuple(sorted(embedded.PHOTOS)))
    patch = np.asarray(Image.open(tmp_path / "photos" / "coffee" / "001.png"))
    assert patch.shape == (48, 48, 3)
    windows = np.lib.stride_tricks.sliding_window_view(
        skimage.data.coffee(), (48, 48, 3)
    )
    corners = np.argwhere((windows[:, :, 0, 0, 0] == patch[0, 0]).all(-1))
    assert any((windows[y, x, 0] == patch).all() for y, x in corners)


def test_embedded_counts_and_balance():
    train, test = (
        open_source("embedded", "", "train"),
        open_source("embedded", "", "test"),
    )
    assert (len(train), len(test), train.num_classes) == (6500, 1300, 13)
    for source, each in ((train, 500), (test, 100)):
        labels = [source.read(i)[1] for i in range(len(source))]
        assert np.bincount(labels).tolist() == [each] * 13
    image = train.read(0)[0]
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(
        open_source("embedded", "", "train").read(0)[0], image
    )
    with pytest.raises(UserError, match="train or test"):
        open_source("embedded", "", "val")


def test_embedded_splits_share_no_pixel(monkeypatch):
    """Photos that hold their own column numbers show where patches come from."""
    import skimage.data

    columns = np.broadcast_to(np.arange(200, dtype=np.uint8), (90, 200))
    for name in embedded.PHOTOS:
        monkeypatch.setattr(skimage.data, name, lambda: columns)
    assert embedded.make_patches("train")[0].max() == 119
    assert embedded.make_patches("test")[0].min() == 120


def test_embedded_needs_no_network_nor_pooch():
    code = (
        "import socket, sys; socket.socket.connect = None; "
        "sys.modules['pooch'] = None; "
        "from vit_ssl_jax.data import embedded; embedded.make_patches('test'); "
        "assert not {'jax', 'tensorflow', 'grain'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fake_is_deterministic_and_differs_between_splits():
    train, test = open_source("fake", "", "train"), open_source("fake", "", "test")
    again = open_source("fake", "", "train")
    np.testing.assert_array_equal(train.read(7)[0], again.read(7)[0])
    assert (train.read(7)[0] != test.read(7)[0]).any()
    assert (train.num_classes, train.read(13)[1]) == (10, 3)
