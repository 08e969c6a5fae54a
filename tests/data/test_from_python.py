"""Data given from Python: what is taken, what is refused, and that it is what is read."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import from_python, pipeline, sources
from vit_ssl_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), np.uint8)
LABELS = np.arange(10) % 4


class Items:
    """A data set with a length and examples by number."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return self.make(i)


def read(data, split="train", num_classes=0, **settings):
    """A split's source, its images and labels."""
    open_source = from_python.make_opener(data, num_classes)
    source = open_source(from_python.NAME, "", split, **settings)
    pairs = [source.read(i) for i in range(len(source))]
    return source, [image for image, _ in pairs], [label for _, label in pairs]


FORMS = {
    "arrays": {"image": IMAGES, "label": LABELS},
    "lists": {"image": list(IMAGES), "label": list(LABELS)},
    "pairs": Items(lambda i: (IMAGES[i], LABELS[i])),
    "a list of pairs": list(zip(IMAGES, LABELS, strict=True)),
    "dicts": Items(lambda i: {"image": IMAGES[i], "label": int(LABELS[i]), "id": i}),
    "pictures": Items(lambda i: (Image.fromarray(IMAGES[i]), LABELS[i])),
}


@pytest.mark.parametrize("form", FORMS)
def test_labelled_data_is_read_as_it_was_given(form):
    source, images, labels = read(FORMS[form], num_classes=4)
    np.testing.assert_array_equal(images, IMAGES)
    assert labels == LABELS.tolist() and source.num_classes == 4


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        {"image": IMAGES},
        {"image": IMAGES, "label": None},
        list(IMAGES),
        Items(lambda i: (IMAGES[i], None)),
    ],
)
def test_images_alone_have_no_labels(data):
    source, images, labels = read(data, num_classes=4)
    np.testing.assert_array_equal(images, IMAGES)
    assert set(labels) == {-1} and source.num_classes == 0


def test_bytes_of_a_file_stay_what_they_are():
    _, images, _ = read(Items(lambda i: (b"GIF", 0)), num_classes=1)
    assert set(images) == {b"GIF"}


def test_a_source_is_taken_as_it_is():
    source = sources.open_source("fake", "", "train")
    found, _, labels = read(dataclasses.replace(source, length=12))
    assert found.class_names == source.class_names and labels[11] == 1


@pytest.mark.parametrize("attribute", ["class_names", "classes"])
def test_a_data_set_may_tell_its_classes(attribute):
    items = Items(lambda i: (IMAGES[i], LABELS[i]))
    setattr(items, attribute, ["ant", "bee", "cat", "dog", "elk"])
    source, _, _ = read(items, num_classes=99)
    assert source.class_names == ("ant", "bee", "cat", "dog", "elk")


def test_splits_have_their_own_images_and_the_same_classes():
    parts = {
        "train": {"image": IMAGES[:7], "label": LABELS[:7] * 0},
        "test": {"image": IMAGES[7:], "label": LABELS[7:]},
    }
    train, _, _ = read(parts)
    test, images, _ = read(parts, "test[1:]")
    np.testing.assert_array_equal(images, IMAGES[8:])
    assert (len(train), len(test)) == (7, 2)
    assert train.num_classes == test.num_classes == 4
    assert len(read(parts, "train+test")[0]) == 10


def test_labels_can_be_left_out():
    source, _, labels = read(FORMS["arrays"], labels=False)
    assert set(labels) == {-1} and source.num_classes == 0


def test_other_sets_are_opened_as_ever():
    open_source = from_python.make_opener(IMAGES, 0)
    assert open_source("fake", "", "test").name == "fake 'test'"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (IMAGES / 255, r"float64 \[10, 6, 5, 3\].*astype\('uint8'\)"),
        (IMAGES.astype(int), r"images are uint8 \[n, height, width, 3\]"),
        (IMAGES[..., 0], r"from grey: np\.repeat"),
        (IMAGES.transpose(0, 3, 1, 2), r"\[10, 3, 6, 5\].*moveaxis\(x, -3, -1\)"),
        (IMAGES[..., :1], r"from grey: np\.repeat\(x, 3, axis=-1\)"),
        (IMAGES[..., [0, 1, 2, 2]], r"without alpha: x\[\.\.\., :3\]"),
        (IMAGES[:0], "there are none"),
        ({"image": IMAGES, "label": LABELS[:9]}, r"int64 \[9\].*each of the 10"),
        ({"image": IMAGES, "label": LABELS / 1}, "float64"),
        ({"image": IMAGES, "label": LABELS - 2}, "or -1 for none"),
        ({"image": IMAGES, "label": np.eye(10, dtype=int)}, r"\[10, 10\]"),
        ({"image": IMAGES, "labels": LABELS}, "the keys image, labels"),
        ({"images": IMAGES, "labels": LABELS}, r"labels.*float|labels.*int64"),
        ({"test": IMAGES}, "no split 'train', it has 'test'"),
        ({}, "it has none"),
        ([], "is empty"),
        (iter(IMAGES), "a data set with a length"),
        (7, "is a int"),
        (Items(lambda i: {"img": IMAGES[i]}), "has no 'image', only img"),
        (Items(lambda i: (IMAGES[i] / 255, 0)), "image 0 of the data given.*uint8"),
        (Items(lambda i: (IMAGES[i], 4)), "label 4.*from 0 to 3.*num_classes"),
        (Items(lambda i: (IMAGES[i], [0, 1])), r"label \[0, 1\]"),
        (Items(lambda i: (IMAGES[i], "cat")), "label 'cat'; it must be an int"),
        (Items(lambda i: (IMAGES[i], 1.0)), "label 1.0; it must be an int"),
        (Items(lambda i: (IMAGES[i], 0, i)), "comes as 3 values"),
        ({"image": [IMAGES[0], IMAGES[1, :3]]}, "images of several sizes as a list"),
        ({"image": IMAGES, "label": LABELS + 2**40}, "from 1099511627776 to"),
        ("train", "is a str"),
    ],
)
def test_what_cannot_be_is_explained(data, said):
    with pytest.raises(UserError, match=said):
        read(data, num_classes=4)


def test_a_label_cannot_be_chosen():
    with pytest.raises(UserError, match="config.data.label: 'breed'"):
        read(IMAGES, label="breed")


def test_an_example_that_cannot_be_ends_reading_with_its_message():
    """Found by a thread of the pipeline, long after the data was taken."""
    items = Items(lambda i: (IMAGES[i] if i != 7 else IMAGES[i, ..., 0], 0))
    source = from_python.make_opener(items, 1)(from_python.NAME, "", "train")
    batches = pipeline.eval_batches(
        source, batch_size=2, size=(4, 4), resize=4, interpolation="bilinear"
    )
    with pytest.raises(UserError, match="image 7 of the data given"):
        list(batches)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16", "F"])
def test_pictures_of_any_mode_are_read_as_files_are(mode):
    picture = Image.new("RGB", (5, 6), "white").convert(
        "L" if mode in "I;16F" else mode
    )
    if mode in ("I;16", "F"):
        top = 65535 if mode == "I;16" else 1.0
        picture = Image.fromarray(np.full((6, 5), top, "u2" if top > 1 else "f4"))
    _, images, _ = read([(picture, 0)] * 3, num_classes=2)
    assert (np.array(images) == 255).all() and images[0].shape == (6, 5, 3)


def test_labels_of_another_name_are_not_passed_over_in_silence():
    items = Items(lambda i: {"image": IMAGES[i], "fine_label": 1, "coarse_label": 0})
    source, _, labels = read(items, num_classes=4)
    assert set(labels) == {-1}
    assert "have fine_label, coarse_label, but no 'label'" in source.notes[0]
