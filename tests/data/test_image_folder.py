"""Folders as people have them: read right, or refused with what to do."""

import os

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import folder, layout, reading, sources, walk
from vit_ssl_jax.errors import UserError


def fill(top, *paths):
    """Makes small images; "a/3" is three of them in a."""
    for path in paths:
        where, _, count = path.rpartition("/")
        names = [f"{i}.png" for i in range(int(count))] if count.isdigit() else [count]
        for name in names:
            file = top / where / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3)).save(file, "PNG")
    return top


def find(top, split="train", labels=True, **settings):
    return folder.find_images(str(top), split, labels=labels, **settings)


def count(images):
    """Images by class name; "" for those without."""
    names = [images.class_names[i] if i >= 0 else "" for i in images.labels]
    return {name: names.count(name) for name in set(names)}


@pytest.mark.parametrize(
    ("names", "split", "folder_name"),
    [
        ("Train Test", "test", "Test"),
        ("TRAINING TESTING", "train", "TRAINING"),
        ("train valid", "validation", "valid"),
        ("train dev", "val", "dev"),
        ("train2017 val2017", "validation", "val2017"),
        ("seg_train seg_test seg_pred", "test", "seg_test"),
        ("train eval", "test", "eval"),
        ("train test", "validation", "test"),
        ("train unlabeled", "unlabeled", "unlabeled"),
        ("train_images test_images", "train", "train_images"),
    ],
)
def test_splits_by_their_usual_names(tmp_path, names, split, folder_name):
    for name in names.split():
        fill(tmp_path, f"{name}/dress/3", f"{name}/hat/2")
    images = find(tmp_path, split)
    assert images.root == tmp_path / folder_name
    assert count(images) == {"dress": 3, "hat": 2}
    said = any("there is no other" in note for note in images.notes)
    assert said == (split == "validation" and folder_name == "test")


@pytest.mark.parametrize(
    "paths",
    [
        ("set/train/a/4", "set/train/b/4", "set/test/a/2", "set/test/b/2"),
        ("a/train/4", "b/train/4", "a/test/2", "b/test/2"),
        ("images/Train/a/4", "images/Train/b/4", "images/Valid/a/2", "cover.png"),
        ("seg/seg_train/a/4", "seg/seg_train/b/4", "seg/seg_test/a/2"),
    ],
)
def test_test_images_are_never_training_images(tmp_path, paths):
    fill(tmp_path, *paths)
    train = find(tmp_path)
    assert count(train) == {"a": 4, "b": 4}
    others = find(tmp_path, "validation")
    assert not {train.root / p for p in train.paths} & {
        others.root / p for p in others.paths
    }


def test_a_class_called_train_is_no_split(tmp_path):
    fill(tmp_path, "car/2", "ship/2", "train/2")
    images = find(tmp_path)
    assert count(images) == {"car": 2, "ship": 2, "train": 2}
    assert "is taken for a class" in images.notes[0]


def test_a_folder_called_train_within_a_class_moves_no_class(tmp_path):
    fill(
        tmp_path, "animals/cat/2", "animals/dog/2", "vehicles/car/2", "vehicles/train/2"
    )
    assert count(find(tmp_path)) == {"animals": 4, "vehicles": 4}


def test_what_lies_beside_split_folders_is_left_out_and_said(tmp_path):
    fill(tmp_path, "train/a/2", "train/b/2", "extra/3", "cover.png")
    images = find(tmp_path)
    assert len(images.paths) == 4
    assert "4 images beside the split folders (train)" in images.notes[0]


def test_two_folders_for_one_split_are_refused(tmp_path):
    fill(tmp_path, "train/2", "Train/2")
    assert len(find(tmp_path, "Train").paths) == 2
    with pytest.raises(UserError, match="several folders for split 'training'"):
        find(tmp_path, "training")


def test_a_stray_image_keeps_the_labels(tmp_path):
    fill(tmp_path, "train/a/6", "train/b/6", "train/cover.png")
    images = find(tmp_path)
    assert count(images) == {"a": 6, "b": 6}
    assert "1 images" in images.notes[0] and "train/cover.png" in images.notes[0]
    assert len(find(tmp_path, labels=False).paths) == 13


def test_few_folders_among_many_images_are_no_classes(tmp_path):
    fill(tmp_path, "9", "a/2", "b/2")
    images = find(tmp_path)
    assert count(images) == {"": 13}
    assert "9 of 13 images lie in no class folder" in images.notes[0]


def test_the_class_is_the_first_folder(tmp_path):
    fill(tmp_path, "train/dress/red/4", "train/dress/blue/3", "train/hat/6")
    images = find(tmp_path)
    assert count(images) == {"dress": 7, "hat": 6}
    assert "below them lie more: dress" in images.notes[0]


def test_one_class_tells_nothing_apart(tmp_path):
    images = find(fill(tmp_path, "train/dress/8"))
    assert count(images) == {"": 8}
    assert "one class, dress" in images.notes[0]


def test_a_class_that_train_lacks(tmp_path):
    fill(tmp_path, "train/dress/2", "train/hat/2", "test/unknown/4", "test/hat/1")
    for split in ("train", "test"):
        with pytest.raises(
            UserError, match=r"unknown \(4 images\).*extra_classes=skip"
        ):
            find(tmp_path, split)
    test = find(tmp_path, "test", extra_classes="skip")
    assert count(test) == {"hat": 1} and test.class_names == ("dress", "hat")
    assert "unknown (4 images)" in test.notes[0]
    kept = find(tmp_path, "test", extra_classes="keep")
    assert kept.class_names == ("dress", "hat", "unknown")
    assert len(find(tmp_path, "test", labels=False).paths) == 5
    with pytest.raises(UserError, match="'drop' is none of error, skip, keep"):
        find(tmp_path, extra_classes="drop")


def test_a_class_in_another_case_is_named(tmp_path):
    fill(tmp_path, "train/dress/2", "train/hat/2", "test/Hat/4")
    with pytest.raises(UserError, match="'Hat' is 'hat' there"):
        find(tmp_path)


def test_a_flat_split_beside_one_with_classes_has_no_labels(tmp_path):
    fill(tmp_path, "train/a/2", "train/b/2", "val/4")
    assert count(find(tmp_path)) == {"a": 2, "b": 2}
    val = find(tmp_path, "val")
    assert count(val) == {"": 4} and "lie in no class folder" in val.notes[0]


def test_a_link_to_a_folder_above_adds_nothing(tmp_path):
    fill(tmp_path, "a/3", "b/3")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "c").symlink_to("b")
    images = find(tmp_path)
    assert count(images) == {"a": 3, "b": 3}
    assert "2 links" in images.notes[0]


def test_links_are_followed_no_folder_twice(tmp_path):
    fill(tmp_path, "elsewhere/a/3", "elsewhere/b/3", "set/val/a/1")
    for name in ("train", "test"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "val" / "a" / "again").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "set" / "val" / "b").symlink_to(tmp_path / "elsewhere" / "a")
    assert count(find(tmp_path / "set")) == {"a": 3, "b": 3}
    assert count(find(tmp_path / "set", "test")) == {"a": 3, "b": 3}
    assert count(find(tmp_path / "set", "val")) == {"a": 4}


def test_content_decides_and_the_rest_is_counted(tmp_path):
    fill(tmp_path, "x.png")
    forms = dict(
        jfif="JPEG", jpe="JPEG", ppm="PPM", jp2="JPEG2000", dat="WEBP", pgm="PPM"
    )
    for suffix, form in forms.items():
        Image.new("RGB", (4, 3)).save(tmp_path / f"x.{suffix}", form)
    (tmp_path / "x.png").rename(tmp_path / "none")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "raw.nef").write_bytes(b"MM\0*" + bytes(30))
    (tmp_path / "notes.txt").write_text("no image")
    os.mkfifo(tmp_path / "pipe")
    images = find(tmp_path)
    assert len(images.paths) == 7
    said = "1 .heic (can't be read), 1 .nef (can't be read), 1 .npy (can't be read)"
    assert said in images.notes[0] and "1 .txt" in images.notes[0]
    assert "1 pipes and devices" in images.notes[0]


def test_what_would_never_end_is_left_out_or_broken(tmp_path):
    """A pipe and a device by the names of images, and a file with a hole of 3 GB."""
    Image.new("RGB", (4, 3)).save(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with open(tmp_path / "hole.jpg", "wb") as hole:
        hole.truncate(3 * 2**30)
    source, lines = sources.open_files(str(tmp_path))
    assert len(source) == 2 and "2 pipes and devices" in lines[0]
    whole = [reading.try_to_read(source, i) is not None for i in range(2)]
    assert whole == [False, True] and source.broken == {0}


def test_a_folder_without_images_says_what_there_is(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"no images in .*there are 1 \.heic"):
        find(tmp_path)


def test_a_tenth_is_held_out_by_name(tmp_path):
    fill(tmp_path, "a/60", "b/60", "c/1")
    train, test = (find(tmp_path, split, hold_out=True) for split in ("train", "test"))
    assert len(train.paths) + len(test.paths) == 121 and 4 < len(test.paths) < 25
    assert not set(train.paths) & set(test.paths)
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert count(train)["c"] == 1  # never a whole class
    assert find(tmp_path, "validation", hold_out=True).paths == test.paths
    assert "told by the hash of their paths" in " ".join(train.notes)
    before = set(test.paths)
    fill(tmp_path, "a/70")  # more images move no old one
    assert before <= set(find(tmp_path, "test", hold_out=True).paths)


def test_nothing_is_held_out_where_there_is_a_test_split(tmp_path):
    fill(tmp_path, "train/30", "test/3")
    assert len(find(tmp_path, hold_out=True).paths) == 30
    assert len(find(tmp_path, "test", hold_out=True).paths) == 3


LABELS = {
    "l.csv": "file,label\nx/0.png,cat\nx/1.png,dog\ny/0.png,cat\ny/1.png,dog\n",
    "l.tsv": "x/0.png\tcat\nx/1.png\tdog\ny/0\tcat\ny/1\tdog\n",
    "l.json": '{"x/0.png": "cat", "x/1.png": "dog", "y/0.png": "cat", "y/1.png": "dog"}',
    "p.json": '{"labels": [["x/0.png", "cat"], ["x/1.png", "dog"], ["y/0.png", "cat"], '
    '["y/1.png", "dog"]]}',
    "d.json": '[{"file_name": "x/0.png", "label": "cat"}, {"file_name": "x/1.png", '
    '"label": "dog"}, {"file_name": "y/0.png", "label": "cat"}, {"file_name": "y/1.png",'
    '"label": "dog"}]',
    "l.txt": "cat\ndog\ncat\ndog\n",
    "w.txt": "x/0.png cat\nx/1.png dog\ny/0.png cat\ny/1.png dog\n",
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_from_a_file(tmp_path, name):
    fill(tmp_path / "images", "x/2", "y/2")
    (tmp_path / name).write_text(LABELS[name])
    images = find(tmp_path / "images", labels_file=str(tmp_path / name))
    assert images.class_names == ("cat", "dog")
    wanted = {path: int(path.endswith("1.png")) for path in images.paths}
    assert dict(zip(images.paths, images.labels, strict=True)) == wanted


def test_names_may_be_any_end_of_a_path(tmp_path):
    fill(
        tmp_path / "set", "images/train/1.png", "images/train/2.png", "images/val/3.png"
    )
    names = [tmp_path / "set/images/train/1.png", "train/2", "set/images/val/3.png"]
    rows = "".join(f"{name},c{i % 2}\n" for i, name in enumerate(names))
    (tmp_path / "l.csv").write_text(f"file,label\n{rows}")
    for split, labels in (("train", {"1.png": 0, "2.png": 1}), ("val", {"3.png": 0})):
        images = find(tmp_path / "set", split, labels_file=str(tmp_path / "l.csv"))
        assert dict(zip(images.paths, images.labels, strict=True)) == labels


def test_numbers_in_a_file_keep_their_order(tmp_path):
    fill(tmp_path, "12")
    rows = "".join(f"{i}.png,{i}\n" for i in range(12))
    (tmp_path / "l.csv").write_text(f"id,label\n{rows}")
    images = find(tmp_path, labels_file=str(tmp_path / "l.csv"))
    assert images.class_names == tuple(map(str, range(12)))


def test_imagenets_validation_by_its_ground_truth(tmp_path):
    import scipy.io

    fill(tmp_path / "set", "train/n01/2", "train/n02/2")
    names = [f"ILSVRC2012_val_0000000{i}.JPEG" for i in range(1, 4)]
    fill(tmp_path / "set", *(f"val/{name}" for name in names))
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n2\n")
    with pytest.raises(UserError, match=r"copy meta\.mat"):
        find(tmp_path / "set", "val", labels_file=str(truth))
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", object)]
    synsets = np.array([(1, "n02"), (2, "n01")], kinds)
    scipy.io.savemat(tmp_path / "meta.mat", {"synsets": synsets})
    val = find(tmp_path / "set", "val", labels_file=str(truth))
    assert val.class_names == ("n01", "n02")
    labels = dict(zip(val.paths, val.labels, strict=True))
    assert [labels[name] for name in names] == [0, 1, 0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.csv", "file,label\n1.png,cat\n", "fits 2 images"),
        ("l.csv", "file,label\nnowhere.png,cat\n", "none of the 1 names"),
        ("l.csv", "file,label\nx/0.png,cat\nx/0.png,dog\n", "'cat' and 'dog'"),
        ("l.csv", "file\nx/0.png\n", "give it the columns file and label"),
        ("l.json", "{", "is no JSON"),
        ("l.json", '{"x/0.png": [1]}', r"has the label \[1\]"),
        ("l.txt", "cat\n", "has 1 lines"),
        ("l.txt", "", "has no label"),
        ("l.xls", "", "isn't one of .csv"),
        ("nowhere.csv", None, "can't be read"),
    ],
)
def test_a_file_of_labels_that_cannot_be(tmp_path, name, text, said):
    fill(tmp_path / "images", "x/2", "y/2")
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"config\.data\.labels_file: .*{said}"):
        find(tmp_path / "images", labels_file=str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("Train", "train"),
        ("trainer", ""),
        ("train2017", "train"),
        ("Test Set", "test"),
        ("dev", "validation"),
        ("device", ""),
        ("evaluation", "test"),
        ("", ""),
    ],
)
def test_meaning_of_a_folders_name(name, meaning):
    assert layout.meaning_of(name) == meaning


def test_beginnings_of_other_files_are_no_images(tmp_path):
    for i, head in enumerate((b"", b"P", b"P5", b"BM", b"RIFF1234WAVE", b"\0" * 20)):
        (tmp_path / str(i)).write_bytes(head)
        assert not walk.begins_as_image(tmp_path / str(i))
    assert not walk.begins_as_image(tmp_path / "nowhere")
