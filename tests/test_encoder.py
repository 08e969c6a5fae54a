"""From a run to features and predictions: the encoder in one line, two commands."""

import csv

import jax
import numpy as np
import pytest
from PIL import Image

import vit_ssl_jax
from tests import runs
from vit_ssl_jax import features, pictures, predict, recipes, train
from vit_ssl_jax.errors import UserError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 32x32 images, 20 each."""
    top = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (top / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(top / name / f"{i:02}.png")
    return top


@pytest.fixture(scope="module")
def run(photos, closing_pictures, tmp_path_factory):
    """A small MAE trained on them."""
    workdir = tmp_path_factory.mktemp("runs") / "mae"
    here = dict(data__name="folder", data__dir=str(photos))
    train.train(runs.small("mae", steps=2, **here), workdir)
    return workdir


@pytest.fixture(scope="module")
def encoder(run):
    return vit_ssl_jax.load(run)


def test_images_of_any_kind_have_the_same_vector(encoder, photos):
    paths = sorted(photos.rglob("*.png"))[:3]
    opened = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(image) for image in opened])
    vectors = encoder.encode(arrays)
    assert (vectors.shape, vectors.dtype) == ((3, 32), np.float32)
    for images in (paths, opened, list(arrays), [paths[0], opened[1], arrays[2]]):
        np.testing.assert_array_equal(encoder.encode(images), vectors)
    for one in (str(paths[0]), opened[0], arrays[0]):
        np.testing.assert_array_equal(encoder.encode(one), vectors[:1])
    np.testing.assert_allclose(encoder.encode(arrays, batch_size=1), vectors, atol=1e-5)


def test_features_of_every_block_and_pool(encoder, photos):
    """Means of patches are their means; the last block is `apply`, inside jit."""
    images = np.stack(
        [np.asarray(Image.open(p)) for p in sorted(photos.rglob("*"))[2:5]]
    )
    for layer in (1, 2):
        rows = encoder.features(images, layer=layer, pool="patches")
        assert rows.shape == (3, 16, 32)
        mean = encoder.features(images, layer=layer)
        np.testing.assert_allclose(rows.mean(1), mean, atol=1e-5)
    np.testing.assert_array_equal(encoder.features(images, layer=-1)[0].shape, (32,))
    tokens = jax.jit(encoder.apply)(encoder.params, np.float32(images / 255))
    np.testing.assert_allclose(tokens[:, 1:], rows, atol=1e-5)
    np.testing.assert_allclose(
        tokens[:, 0], encoder.features(images, pool="cls"), atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(layer=3), "blocks 1 to 2"),
        (dict(pool="max"), "'max' is not one of mean, cls, patches"),
    ],
)
def test_features_that_there_are_none_of(encoder, changes, said):
    with pytest.raises(UserError, match=said):
        encoder.features(np.zeros((1, 32, 32, 3), np.uint8), **changes)


def test_images_that_cannot_be_read_are_named(encoder, tmp_path):
    with pytest.raises(UserError, match="nowhere.jpg can't be read"):
        encoder.encode([tmp_path / "nowhere.jpg"])
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match="1 of 1 images can't be read|are broken"):
        encoder.encode([tmp_path / "text.jpg"])


@pytest.mark.parametrize("form", [".npz", ".npy", ".parquet"])
def test_the_command_writes_features_and_names(run, encoder, photos, tmp_path, form):
    if form == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / f"f{form}"
    (tmp_path / "a").mkdir()
    said = []
    vectors = features.write_features(run, photos, out, say=said.append)
    names = [str(p.relative_to(photos)) for p in sorted(photos.rglob("*.png"))]
    np.testing.assert_allclose(
        vectors, encoder.encode([photos / n for n in names]), atol=1e-5
    )
    if form == ".npz":
        read = np.load(out)
        read, files = read["features"], read["files"].tolist()
    elif form == ".npy":
        read, files = np.load(out), out.with_suffix(".files.txt").read_text().split()
    else:
        table = parquet.read_table(out)
        read, files = np.stack(table["features"].to_pylist()), table["file"].to_pylist()
    np.testing.assert_array_equal(np.float32(read), vectors)
    assert files == names
    assert not out.with_name(f"{out.name}.parts").exists()
    assert f"{out}: 40 images, features [32] float32" in said[-1]


def test_features_go_on_where_they_were_stopped(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PART", 16)
    whole = features.write_features(run, photos, tmp_path / "whole.npz")
    save, saved = features.save_part, []

    def stop(folder, start, *rest):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(start)
        save(folder, start, *rest)

    monkeypatch.setattr(features, "save_part", stop)
    with pytest.raises(KeyboardInterrupt):
        features.write_features(run, photos, tmp_path / "f.npz")
    monkeypatch.setattr(features, "save_part", save)
    said = []
    again = features.write_features(run, photos, tmp_path / "f.npz", say=said.append)
    assert "going on: 2 of 3 parts are done" in said
    np.testing.assert_array_equal(again, whole)


def test_a_broken_image_is_left_out_and_named(run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(2):
        Image.new("RGB", (32, 32)).save(images / f"{i}.png")
    (images / "x.png").write_text("no image")
    said = []
    vectors = features.write_features(run, images, tmp_path / "f.npz", say=said.append)
    assert len(vectors) == 2 and any("x.png" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(out="f.csv"), "end it with .npz or .parquet or .npy"),
        (dict(out="/nowhere/f.npz"), "there is no folder /nowhere"),
        (dict(images="/nowhere"), "--images=/nowhere: there is no such folder"),
        (dict(checkpoint="/nowhere"), "there is no checkpoint under /nowhere"),
    ],
)
def test_paths_that_cannot_be(run, photos, tmp_path, changes, said):
    paths = dict(checkpoint=run, images=photos, out=tmp_path / "f.npz") | changes
    with pytest.raises(UserError, match=said):
        features.write_features(**paths)


def test_predictions_have_names_and_add_up(photos, tmp_path):
    small = {"vit.variant": "2x32x2/8", "data.size": (32, 32), "data.resize": 32}
    small |= {"steps": 2, "batch_size": 16, "health.every": 0, "summary": False}
    config = recipes.load("own.py:supervised,cpu", **small, **{"data.dir": str(photos)})
    train.train(config, tmp_path / "run")
    assert predict.predict(tmp_path / "run", photos, tmp_path / "p.csv") == 40
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"file", "prediction", "probability", "cat", "dog"}
    for row in rows:
        assert float(row["cat"]) + float(row["dog"]) == pytest.approx(1, abs=1e-4)
        assert float(row[row["prediction"]]) == max(
            float(row[c]) for c in ("cat", "dog")
        )


def test_a_run_that_is_no_classifier_predicts_nothing(run, photos, tmp_path):
    with pytest.raises(UserError, match="'mae', which makes no classifier"):
        predict.predict(run, photos, tmp_path / "p.csv")


def test_a_run_ends_with_a_picture_and_its_class_names(run, photos):
    sheet = Image.open(run / "pictures.png")
    assert min(sheet.size) > 90
    rows = pictures.draw(run)
    assert len(rows) >= 2
    assert '"classes": [\n    "cat",\n    "dog"\n  ]' in (run / "data.json").read_text()
