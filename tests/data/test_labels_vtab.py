"""VTAB's labels: each rule by hand on small prepared sets of the same features."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import labels, pipeline
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError


def png(pixels=((7, 7), (7, 7))):
    """A PNG of grey values."""
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file


def clevr_objects(depths):
    return [
        {"size": i % 2, "pixel_coords": [300.0, 10.0, z], "color": 0}
        for i, z in enumerate(depths)
    ]


# Depths of the objects of an image -> its class by count and by distance.
CLEVR = [
    ([12.0, 7.5, 30.0], 0, 0),
    ([8.0, 8.1, 8.2, 99.0], 1, 0),  # not more than 8
    ([8.25, 12.0, 12.0], 0, 1),
    ([8.5] * 10, 7, 1),
    ([11.0, 8.75, 9.0, 9.25, 9.75], 2, 2),
    ([9.25] * 3, 0, 3),
    ([9.75] * 3, 0, 4),
    ([50.0, 40.0, 10.5], 0, 5),
]


def test_clevr_by_count_and_by_depth(write_set, tfds, read_labels):
    kinds = tfds.features
    inside = {
        "color": kinds.ClassLabel(num_classes=8),
        "pixel_coords": kinds.Tensor(shape=(3,), dtype=np.float32),
        "size": kinds.ClassLabel(names=["small", "large"]),
    }
    asked = kinds.Sequence({"question": kinds.Text(), "answer": kinds.Text()})
    features = {
        "id": kinds.Scalar(np.int32),
        "image": kinds.Image(),
        "objects": kinds.Sequence(inside),
        "question_answer": asked,
    }
    some = [
        {"id": i, "objects": clevr_objects(depths), "image": png([[[1, 2, 3]]])}
        | {"question_answer": [{"question": "how many?", "answer": str(len(depths))}]}
        for i, (depths, _, _) in enumerate(CLEVR)
    ]
    top = write_set("clevr", features, {"train": some})
    source, values = read_labels(top, "clevr", label="clevr_count")
    assert values == [count for _, count, _ in CLEVR]
    assert (source.num_classes, source.class_names[7]) == (8, "10 objects")
    source, values = read_labels(top, "clevr", label="clevr_distance")
    assert values == [distance for _, _, distance in CLEVR]
    assert (source.num_classes, source.class_names[5]) == (6, "10 to 100")
    assert open_source("clevr", str(top), "train").read(0)[1] == -1  # no class at top
    with pytest.raises(
        UserError, match=r"needs the feature objects \(location, type\)"
    ):
        open_source("clevr", str(top), "train", label="kitti_distance")


# Types and distances ahead of the objects of an image -> its class.
KITTI = [
    ([], 3),
    ([(3, 5.0), (5, 1.0)], 3),  # pedestrian and cyclist
    ([(0, 8.0)], 0),
    ([(0, -2.0), (3, 30.0)], 0),
    ([(1, 8.5), (0, 30.0)], 1),
    ([(2, 20.5), (4, 1.0)], 2),
    ([(2, 20.0)], 1),
]


def test_kitti_by_the_nearest_vehicle(write_set, tfds, read_labels):
    kinds = tfds.features
    names = ["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist"]
    inside = {
        "type": kinds.ClassLabel(names=names),
        "location": kinds.Tensor(shape=(3,), dtype=np.float32),
    }
    features = {
        "id": kinds.Scalar(np.int32),
        "image": kinds.Image(),
        "objects": kinds.Sequence(inside),
    }

    def objects(some):
        return [{"type": kind, "location": [-90.0, 1.0, z]} for kind, z in some]

    some = [
        {"id": i, "image": png([[[1, 2, 3]]]), "objects": objects(pairs)}
        for i, (pairs, _) in enumerate(KITTI)
    ]
    top = write_set("kitti", features, {"train": some})
    source, values = read_labels(top, "kitti", label="kitti_distance")
    assert values == [distance for _, distance in KITTI]
    assert (source.num_classes, source.class_names[3]) == (4, "no vehicle")


def test_dsprites_are_white_on_black_in_sixteen_classes(write_set, tfds, read_labels):
    kinds = tfds.features
    features = {
        "id": kinds.Scalar(np.int32),
        "image": kinds.Image(shape=(2, 2, 1)),
        "label_orientation": kinds.ClassLabel(num_classes=40),
        "label_x_position": kinds.ClassLabel(num_classes=32),
    }
    some = [
        {"id": i, "image": png([[0, 1], [1, 0]])}
        | {"label_orientation": i, "label_x_position": i % 32}
        for i in range(40)
    ]
    top = write_set("dsprites", features, {"train": some})
    source, values = read_labels(top, "dsprites", label="dsprites_orientation")
    assert values == [int(np.floor(i / 2.5)) for i in range(40)]
    assert source.num_classes == 16
    image = source.read(0)[0]
    assert (image.shape, image.dtype) == ((2, 2, 3), np.uint8)
    assert image[..., 1].tolist() == [[0, 255], [255, 0]]
    source, values = read_labels(top, "dsprites", label="dsprites_location")
    assert values == [i % 32 // 2 for i in range(40)]
    assert source.num_classes == 16
    ways = {"crop": (), "ratio": (1.0, 1.0), "flip": False, "seed": 0, "batch_size": 4}
    ways |= {"size": (2, 2), "resize": 2, "interpolation": "bilinear"}
    batch = next(pipeline.train_batches(source, **ways))
    assert (batch["image"][..., 0] == [[0, 255], [255, 0]]).all()


def test_each_rule_names_its_classes():
    counts = {rule: len(label.class_names) for rule, label in labels.RULES.items()}
    assert counts == {
        "clevr_count": 8,
        "clevr_distance": 6,
        "kitti_distance": 4,
        "dsprites_location": 16,
        "dsprites_orientation": 16,
    }
    for label in labels.RULES.values():
        assert len(set(label.class_names)) == len(label.class_names)
