"""Labels: features of small prepared sets, one class or several at once."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import decoding, labels, pipeline
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError

CENTRE = {"size": (8, 8), "resize": 8, "interpolation": "bilinear"}


def png(pixels=((7, 7), (7, 7))):
    """A PNG of grey values."""
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def norb(write_set, tfds):
    """Like smallNORB: two grey images, several labels; and numbers of other kinds."""
    kinds = tfds.features
    features = {
        "id": kinds.Scalar(np.int32),
        "image": kinds.Image(shape=(2, 2, 1)),
        "image2": kinds.Image(shape=(2, 2, 1)),
        "label_azimuth": kinds.ClassLabel(num_classes=18),
        "label_category": kinds.ClassLabel(names=["car", "truck"]),
        "count": kinds.Scalar(np.int64),
        "below": kinds.Scalar(np.int64),
        "size": kinds.Scalar(np.float32),
        "several": kinds.Sequence(kinds.ClassLabel(num_classes=5)),
    }

    def example(i):
        numbers = {"count": 2 * i, "below": -i, "size": 0.5, "label_azimuth": 17 - i}
        sets = {"several": [[], [4, 0], [2, 2], [1]][i % 4], "label_category": i % 2}
        images = {"image": png([[i, 100], [50, 0]]), "image2": png()}
        return {"id": i} | images | numbers | sets

    splits = {"train": map(example, range(4)), "test": map(example, range(8))}
    return write_set("norb", features, splits)


def test_the_first_class_by_name_or_the_feature_that_is_named(norb, read_labels):
    source, values = read_labels(norb, "norb")
    assert (values, source.num_classes) == ([17, 16, 15, 14], 18)  # azimuth
    pixels = decoding.decode(source.read(0)[0])
    assert pixels[0, 1, 0] == 100  # of "image", not of "image2"
    source, values = read_labels(norb, "norb", label="label_category")
    assert (values, source.class_names) == ([0, 1, 0, 1], ("car", "truck"))
    source, values = read_labels(norb, "norb", label="label_category", labels=False)
    assert (values, source.class_names) == ([-1] * 4, ())


def test_the_choice_does_not_depend_on_the_order_of_features(tfds):
    """Which is another in every process: CIFAR-100's file has two classes."""
    kinds = tfds.features
    twenty, hundred = (kinds.ClassLabel(num_classes=n) for n in (20, 100))
    pairs = [("coarse_label", twenty), ("label", hundred), ("age", kinds.Text())]
    for order in (pairs, pairs[::-1]):
        found = labels.find_label(dict(order), "", "cifar100", len)
        assert (list(found.needs), len(found.class_names)) == (["label"], 100)
        others = {key: f for key, f in order if key != "label"} | {"z": hundred}
        assert list(labels.find_label(others, "", "x", len).needs) == ["coarse_label"]


def test_an_integer_has_as_many_classes_as_all_splits_show(norb, read_labels):
    source, values = read_labels(norb, "norb", label="count")
    assert (values, source.num_classes) == ([0, 2, 4, 6], 15)  # up to 14 in "test"
    with pytest.raises(UserError, match="'below' .* is -7 .* counted from 0"):
        open_source("norb", str(norb), "train", label="below")


def test_grey_images_have_three_channels(norb):
    source = open_source("norb", str(norb), "train[:1]")
    pixels = decoding.decode(source.read(0)[0])
    assert pixels.shape == (2, 2, 3)
    assert (pixels == pixels[..., :1]).all()
    assert pixels[..., 0].tolist()[1] == [50, 0]


def test_several_classes_are_ones_among_zeros(norb, read_labels):
    source, values = read_labels(norb, "norb", label="several")
    assert source.num_classes == 5
    assert {value.dtype for value in values} == {np.dtype(np.uint8)}
    expected = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert np.stack(values).tolist() == expected


def test_batches_carry_several_classes(norb):
    source = open_source("norb", str(norb), "train+test[:2]", label="several")
    read = np.stack([source.read(i)[1] for i in range(6)])
    (batch,) = pipeline.eval_batches(source, batch_size=8, **CENTRE)
    assert (batch["label"].shape, batch["label"].dtype) == ((8, 5), np.uint8)
    np.testing.assert_array_equal(batch["label"][:6], read)
    train = {"crop": (0.2, 1.0), "ratio": (0.75, 1.5), "flip": True, "seed": 0}
    batch = next(pipeline.train_batches(source, batch_size=6, **CENTRE, **train))
    np.testing.assert_array_equal(batch["label"], read[batch["id"]])
    whole = source.read

    def broken(i):
        return (b"no image" if i == 2 else whole(i)[0]), np.ones(5, np.uint8)

    object.__setattr__(source, "read", broken)
    (batch,) = pipeline.eval_batches(source, batch_size=8, **CENTRE)
    assert batch["valid"].tolist() == [
        True,
        True,
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert batch["label"][2].tolist() == [0] * 5


def test_labels_that_can_not_be(norb):
    def why(label):
        with pytest.raises(UserError, match="config.data.label: ") as error:
            open_source("norb", str(norb), "train", label=label)
        return str(error.value)

    assert "no feature 'azimuth': it has below, count, id, image, " in why("azimuth")
    assert "kitti_distance" in why("azimuth")
    assert "'size' of norb" in why("size") and "no integer" in why("size")
    assert "'image' of norb" in why("image")
    assert "needs the feature objects (size), but norb" in why("clevr_count")
    assert "needs the feature label_x_position, but" in why("dsprites_location")
    for name in ("fake", "embedded", "folder"):
        with pytest.raises(UserError, match=f"config.data.label: 'x' .*{name} has one"):
            open_source(name, "", "train", label="x")
