"""Sets of `datasets`: as it saved them, as the hub has them, and what isn't one."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import decoding, pipeline
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError

datasets = pytest.importorskip("datasets")


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def rows(count, column="img", **others):
    """Images whose red is their number; their class is that modulo 3."""
    features = {
        column: datasets.Image(),
        "number": datasets.Value("int64"),
        "kind": datasets.ClassLabel(names=["a", "b", "c"]),
    }
    values = {
        column: [png(i) for i in range(count)],
        "number": list(range(count)),
        "kind": [i % 3 for i in range(count)],
    }
    features |= {name: kind for name, (kind, _) in others.items()}
    values |= {name: value for name, (_, value) in others.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    top = tmp_path_factory.mktemp("saved")
    splits = {"train": rows(20), "test": rows(7)}
    datasets.DatasetDict(splits).save_to_disk(top)
    return str(top)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """As a repository of the hub is laid out."""
    top = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(top / "cache"))
        (top / "set" / "data").mkdir(parents=True)
        for split, count in (("train", 20), ("test", 7)):
            file = top / "set" / "data" / f"{split}-00000-of-00001.parquet"
            rows(count).to_parquet(file)
        yield str(top / "set")


@pytest.mark.parametrize("kind", ["saved", "parquet"])
@pytest.mark.parametrize(("split", "count"), [("train", 20), ("test[:5]", 5)])
def test_images_and_labels_are_those_of_the_rows(request, kind, split, count):
    source = open_source("huggingface", request.getfixturevalue(kind), split)
    assert (len(source), source.class_names) == (count, ("a", "b", "c"))
    assert any("are copied once" in note for note in source.notes) == (
        kind == "parquet"
    )
    for i in range(count):
        content, label = source.read(i)
        assert decoding.decode(content)[0, 0].tolist() == [i, 0, 0]
        assert label == i % 3


def test_one_split_alone_is_train(tmp_path):
    rows(5, column="image").save_to_disk(tmp_path)
    assert len(open_source("huggingface", str(tmp_path), "train")) == 5
    with pytest.raises(UserError, match="no split 'test': it has train"):
        open_source("huggingface", str(tmp_path), "test")


def test_the_test_split_stands_in_for_validation_and_says_so(saved):
    source = open_source("huggingface", saved, "validation")
    assert len(source) == 7 and "split 'validation' is 'test' of" in source.notes[0]


def test_labels_are_a_column_by_name_or_none(tmp_path):
    other = datasets.ClassLabel(names=["x", "y"]), [0, 1, 1, 0]
    rows(4, breed=other).save_to_disk(tmp_path)
    source = open_source("huggingface", str(tmp_path), "train", label="breed")
    assert [source.read(i)[1] for i in range(4)] == [0, 1, 1, 0]
    assert source.class_names == ("x", "y")
    bare = open_source("huggingface", str(tmp_path), "train", labels=False)
    assert bare.class_names == () and bare.read(1)[1] == -1
    said = "'number' is no column of class labels of .*; it has kind, breed"
    with pytest.raises(UserError, match=said):
        open_source("huggingface", str(tmp_path), "train", label="number")


def test_worker_processes_read_them_alike(saved):
    source = open_source("huggingface", saved, "train")
    how = dict(size=(8, 8), resize=8, crop=(), ratio=(1, 1), interpolation="bilinear")
    for processes in (0, 1):
        batches = pipeline.train_batches(
            source, batch_size=4, seed=0, flip=False, processes=processes, **how
        )
        batch = next(batches)
        batches.close()
        np.testing.assert_array_equal(batch["image"][:, 4, 4, 0], batch["id"])


def test_a_row_without_an_image_is_a_broken_image(tmp_path):
    values = [png(0), None, png(2)]
    features = datasets.Features({"image": datasets.Image()})
    made = datasets.Dataset.from_dict({"image": values}, features=features)
    made.save_to_disk(tmp_path)
    source = open_source("huggingface", str(tmp_path), "train")
    with pytest.raises(OSError, match="row 1 of .* has no image"):
        source.read(1)


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        open_source("huggingface", str(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match="neither dataset_dict.json nor state.json"):
        open_source("huggingface", str(tmp_path), "train")
    (tmp_path / "dataset_dict.json").write_text("{")
    with pytest.raises(UserError, match="can't be read: "):
        open_source("huggingface", str(tmp_path), "train")
    text = datasets.Dataset.from_dict({"text": ["a"]})
    text.save_to_disk(tmp_path / "text")
    with pytest.raises(UserError, match=r"no column of images: it has text \(Value\)"):
        open_source("huggingface", str(tmp_path / "text"), "train")


def test_without_the_extra_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'vit_ssl_jax\[huggingface\]'"):
        open_source("huggingface", saved, "train")
