"""Sets prepared by TFDS: read without TensorFlow, found by folder alone."""

import io
import json
import shutil

import pytest
from PIL import Image

from vit_ssl_jax.data import reading
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError


def png(value):
    """A file of a PNG of one value: TFDS stores a file's bytes without TensorFlow."""
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (value, value, value)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def prepared(write_set):
    """A directory with `tiny` in versions 1.0.0, 1.9.0 and 1.10.0, made by TFDS."""
    import tensorflow_datasets as tfds

    features = {
        "name": tfds.features.Text(),
        "picture": tfds.features.Image(),
        "kind": tfds.features.ClassLabel(names=["odd", "even"]),
    }

    def some(count):
        return [
            {"name": str(i), "picture": png(i), "kind": i % 2} for i in range(count)
        ]

    top = write_set("tiny", features, {"train": some(12), "test": some(5)})
    newer = shutil.copytree(top / "tiny" / "1.0.0", top / "tiny" / "1.10.0")
    edit_info(newer, version="1.10.0")
    edit_info(shutil.copytree(newer, top / "tiny" / "1.9.0"), version="1.9.0")
    return top


def edit_info(folder, **entries):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_prepared_set_is_read_whole_and_encoded(prepared):
    source = open_source("tiny", str(prepared), "train")
    assert "1.10.0" in source.name
    assert (len(source), source.class_names) == (12, ("odd", "even"))
    seen = set()
    for i in range(12):
        data, label = source.read(i)
        value = Image.open(io.BytesIO(data)).getpixel((0, 0))[0]
        assert label == value % 2
        seen.add(value)
    assert seen == set(range(12))
    assert len(open_source("tiny", str(prepared), "test[:40%]")) == 2


def test_prepared_splits_are_put_together(prepared):
    split = "train[:3]+test+train[50%:]"
    source = open_source("tiny", str(prepared), split)
    train, test = (
        open_source("tiny", str(prepared), name) for name in ("train", "test")
    )
    assert (len(source), source.class_names) == (14, ("odd", "even"))
    for i in range(14):
        part, number = (
            (train, i if i < 3 else i - 2) if not 3 <= i < 8 else (test, i - 3)
        )
        assert source.read(i) == part.read(number)
        assert source.where(i) == part.where(number)
    with pytest.raises(UserError, match=r"'test\[:6\]' is images 0 to 6 of the 5"):
        open_source("tiny", str(prepared), "train[:3]+test[:6]")
    with pytest.raises(UserError, match="no split 'exam': choose train, test"):
        open_source("tiny", str(prepared), "train[:3]+exam")


def test_prepared_set_by_version_folder_and_by_config(prepared, tmp_path):
    version = prepared / "tiny" / "1.0.0"
    assert "1.0.0" in open_source("tiny/1.0.0", str(prepared), "test").name
    assert len(open_source("tiny", str(version), "test")) == 5
    assert len(open_source("tiny", str(prepared / "tiny"), "test")) == 5
    with pytest.raises(UserError, match="holds data set 'tiny', not 'other'"):
        open_source("other", str(version), "test")
    shutil.copytree(version, tmp_path / "tiny" / "red" / "1.0.0")
    assert len(open_source("tiny", str(tmp_path), "test")) == 5
    shutil.copytree(version, tmp_path / "tiny" / "blue" / "1.0.0")
    assert len(open_source("tiny/red", str(tmp_path), "test")) == 5
    with pytest.raises(UserError, match="choose tiny/blue, tiny/red"):
        open_source("tiny", str(tmp_path), "test")


def test_prepared_set_errors(prepared, tmp_path):
    with pytest.raises(UserError, match="choose train, test"):
        open_source("tiny", str(prepared), "validation")
    with pytest.raises(UserError, match=r"\(it has tiny\).*knows no set of that"):
        open_source("tyni", str(prepared), "train")
    with pytest.raises(UserError, match="which doesn't exist"):
        open_source("tiny", str(tmp_path / "nowhere"), "train")
    copy = shutil.copytree(prepared / "tiny" / "1.0.0", tmp_path / "tiny" / "1.0.0")
    next(copy.glob("*-test.*")).unlink()
    with pytest.raises(UserError, match="is incomplete"):
        open_source("tiny", str(tmp_path), "test")
    edit_info(copy, fileFormat="tfrecord")
    with pytest.raises(UserError, match="tfrecord.*tfds convert_format"):
        open_source("tiny", str(tmp_path), "train")
    edit_info(copy, alternativeFileFormats=["array_record"])
    assert len(open_source("tiny", str(tmp_path), "train")) == 12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar10", r"python -c 'import tensorflow_datasets .*\(\"cifar10\""),
        ("cifra10", "TFDS knows no set of that name; did you mean .*cifar10"),
        ("imagenet2012", "ILSVRC2012_img_train.tar .* --config.data.name=folder"),
        ("resisc45", "downloaded by hand first .*catalog/resisc45"),
    ],
)
def test_a_set_that_is_not_there_is_told_what_can_work(tmp_path, name, said):
    with pytest.raises(UserError, match=said):
        open_source(name, str(tmp_path), "train")


def damage(prepared, tmp_path, change):
    """A copy of the set whose one training shard is `change`d, bytes to bytes."""
    pytest.importorskip("array_record")
    folder = shutil.copytree(prepared / "tiny" / "1.0.0", tmp_path / "tiny" / "1.0.0")
    (shard,) = folder.glob("tiny-train*")
    shard.write_bytes(change(shard.read_bytes()))
    return folder, str(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_shard_that_is_cut_is_refused(prepared, tmp_path, part):
    """Not read as an empty one, nor its records as those of the next."""
    change = lambda content: content[: int(part * len(content))]
    _, top = damage(prepared, tmp_path, change)
    said = r"tiny-train\S+ holds 0 records, not the 12 that dataset_info.json says"
    with pytest.raises(UserError, match=said):
        open_source("tiny", top, "train")
    assert len(open_source("tiny", top, "test")) == 5


def test_an_index_that_does_not_match_its_shards_is_refused(prepared, tmp_path):
    folder, top = damage(prepared, tmp_path, bytes)
    info = json.loads((folder / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "train":
            split["shardLengths"] = ["13"]
    edit_info(folder, splits=info["splits"])
    with pytest.raises(UserError, match="holds 12 records, not the 13"):
        open_source("tiny", top, "train")


def test_a_record_that_is_damaged_is_a_broken_image(prepared, tmp_path):
    def change(content):
        start = content.index(b"PNG") - 40
        return content[:start] + bytes(60) + content[start + 60 :]

    _, top = damage(prepared, tmp_path, change)
    source = open_source("tiny", top, "train")
    whole = [reading.try_to_read(source, i) is not None for i in range(12)]
    assert whole.count(False) == 1 == len(source.broken)


def test_a_set_that_brings_code_of_its_own_is_refused(prepared, tmp_path, monkeypatch):
    """TFDS would import the module that `features.json` names, from the working folder."""
    (tmp_path / "planted.py").write_text("raise SystemExit('code of the set has run')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(prepared / "tiny" / "1.10.0", tmp_path / "tiny" / "1.10.0")
    path = folder / "features.json"
    whole = path.read_text()
    theirs = "tensorflow_datasets.core.features.text_feature.Text"
    for text, said in (
        (whole.replace(theirs, "planted.Text"), "'planted.Text', but only features"),
        (
            '{"type": "planted.Text", "content": {}}',
            "'planted.Text', but only features",
        ),
        (whole[:-9], "isn't whole"),
        ("[" * 100_000, "isn't whole"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            open_source("tiny", str(tmp_path), "train")
    path.unlink()
    with pytest.raises(UserError, match=r"features.json is missing"):
        open_source("tiny", str(tmp_path), "train")
