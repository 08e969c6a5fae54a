"""Training data from a config: what is refused before any work."""

import contextlib
import dataclasses
import itertools
import json
import types

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import train_data
from vit_ssl_jax.data import sources
from vit_ssl_jax.errors import UserError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(data__randaugment="rand-m9-mstd0.5-x"), "config.data.randaugment"),
        (dict(data__pad=4), "config.data.pad"),
        (dict(data__crop=(), data__train_resize=16), "config.data.train_resize"),
        (dict(data__label="breed"), "config.data.label"),
    ],
)
def test_an_augmentation_or_a_label_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        train_data.open_data(runs.small("mae", **changes))


def photos(top, *classes):
    for name in classes:
        for i in range(20):
            (top / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(top / name / f"{i}.png")
    return dict(data__name="folder", data__dir=str(top))


@pytest.mark.parametrize(
    ("classes", "changes", "held_out"),
    [
        (("a", "b"), dict(evals__knn__every_epochs=0.0), True),
        (("a", "b"), dict(evals__knn__every_epochs=-1.0), False),
        (("a", "b"), dict(evals__knn__every_epochs=0.0, data__labels=False), False),
        (("",), dict(evals__knn__every_epochs=0.0), False),  # k-NN needs labels
        (
            ("train/a", "train/b", "test/a"),
            dict(evals__knn__every_epochs=0.0),
            False,
        ),
    ],
)
def test_a_tenth_is_held_out_where_an_evaluator_can_use_it(
    tmp_path, classes, changes, held_out
):
    config = runs.small("mae", **photos(tmp_path, *classes), **changes)
    open_source, source, lines = train_data.open_run(config)
    assert (len(source) < 20 * len(classes)) == (held_out or len(classes) > 2)
    assert any("are held out" in line for line in lines) == held_out
    if held_out:
        test = open_source("folder", str(tmp_path), "test")
        names = [{s.where(i) for i in range(len(s))} for s in (source, test)]
        assert len(names[0] | names[1]) == 40 and not names[0] & names[1]


def test_what_was_left_out_of_a_folder_is_said(tmp_path):
    changes = photos(tmp_path, "a", "b")
    (tmp_path / "notes.heic").write_text("")
    _, _, lines = train_data.open_run(runs.small("mae", **changes))
    assert lines[1] == "data: no images: 1 .heic (can't be read)"


def test_other_sets_are_read_without_the_files_of_this_one(tmp_path):
    changes = photos(tmp_path / "x", "a", "b")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na/0.png,cat\nb/0.png,dog\n")
    config = runs.small("mae", **changes, data__labels_file=str(labels))
    open_source, source, _ = train_data.open_run(config)
    assert source.num_classes == 0  # 38 of 40 aren't in the file
    assert open_source("fake", "", "test").num_classes == 10
    with pytest.raises(UserError, match="labels_file: fake has labels of its own"):
        train_data.open_run(runs.small("mae", data__labels_file=str(labels)))


def test_sets_of_classes_are_not_for_training(monkeypatch):
    source = sources.open_source("fake", "", "train")
    sets = dataclasses.replace(source, no_label=np.zeros(10, np.uint8))
    monkeypatch.setattr(sources, "open_source", lambda *a, **k: sets)
    with pytest.raises(UserError, match="training needs one class"):
        train_data.open_data(runs.small("mae"))


def test_an_image_without_a_label_stops_a_method_that_learns_from_labels():
    config = runs.small("mae").copy_and_resolve_references().unlock()
    source = sources.open_source("fake", "", "train")
    part = dataclasses.replace(source, read=lambda i: (source.read(i)[0], i % 2 - 1))
    assert (next(train_data.open_batches(config, part, 0))["label"] == -1).any()  # MAE
    with pytest.raises(UserError, match=r"has no label \(-1\)"):
        next(
            train_data.open_batches(
                config, part, 0, types.SimpleNamespace(needs_labels=True)
            )
        )


def test_a_run_goes_on_with_the_pixels_that_it_began_with(tmp_path):
    """One of before there was a choice had the first of each; a new run has its config's."""
    config = runs.small("mae", data__stream=2, data__pixels="near")
    config = config.copy_and_resolve_references()
    assert train_data.keep_pixels(config, tmp_path) == []
    before = json.loads(config.to_json())
    for key in ("stream", "pixels"):
        del before["data"][key]
    (tmp_path / "config.json").write_text(json.dumps(before))
    lines = train_data.keep_pixels(config, tmp_path)
    assert (config.data.stream, config.data.pixels) == (1, "pillow")
    assert [line.partition(",")[0] for line in lines] == [
        "data: config.data.stream is 1",
        "data: config.data.pixels is 'pillow'",
    ]
    (tmp_path / "config.json").write_text(config.to_json())
    assert train_data.keep_pixels(config, tmp_path) == []


@pytest.mark.parametrize(("part", "broken", "ends"), [(0.1, 2, False), (0.1, 3, True)])
def test_too_many_broken_images_end_a_run(tmp_path, part, broken, ends):
    """Of twenty images one in ten may be; the message says how to go on."""
    where = photos(tmp_path, "a")
    for path in sorted(tmp_path.rglob("*.png"))[:broken]:
        path.write_bytes(b"no image")
    config = (
        runs.small("mae", data__max_broken=part, **where)
        .copy_and_resolve_references()
        .unlock()
    )
    source, _ = train_data.open_data(config)
    batches = train_data.open_batches(config, source, 0)
    if ends:
        with pytest.raises(UserError, match="--config.data.max_broken=1.0"):
            list(itertools.islice(batches, 4))
    else:
        assert len(list(itertools.islice(batches, 4))) == 4
    batches.close()


def test_training_images_are_as_large_as_the_crops_of_them_need(tmp_path):
    top = tmp_path / "photos"
    photos(top, "a", "b")
    changes = dict(data__name="folder", data__dir=str(top), data__crop=())
    config = runs.small("mae", **changes, data__train_resize=64, data__workers=0)
    config.data.train_size = (48, 64)
    source, _ = train_data.open_data(config)
    with contextlib.closing(train_data.open_batches(config, source, 0)) as batches:
        assert next(batches)["image"].shape == (16, 48, 64, 3)
    card, _ = train_data.make_card(config, source)
    assert card["training"].endswith("-> 48x64")
