"""Images by a list of names: of a folder, a tar, prepared sets; what a list can't be."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import openers, train_data
from vit_ssl_jax.data import card, decoding, names, pipeline, prepare
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.errors import UserError

WNIDS = ("n01440764", "n01443537")
NAMES = {
    f"{wnid}_{i}.JPEG": (100 * c + i, c)
    for c, wnid in enumerate(WNIDS)
    for i in range(6)
}
MISSING = r"4 of the 7 names in .*list.txt are no images of .*, such as n1_0.JPEG, "
MISSING += r"n1_1.JPEG, n1_2.JPEG; those there are called .*n0144"
WANTED = [f"{WNIDS[0]}_4.JPEG", f"{WNIDS[1]}_0.JPEG", f"{WNIDS[0]}_1.JPEG"]


def picture(value):
    """A PNG of one value."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/WNID/WNID_NUMBER.JPEG, as ImageNet unpacks, and val beside it."""
    top = tmp_path_factory.mktemp("listed") / "photos"
    for name, (value, c) in NAMES.items():
        for split in ("train", "val"):
            path = top / split / WNIDS[c] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(value))
    return top


@pytest.fixture(scope="module")
def own_set(folder, tmp_path_factory):
    """The same, prepared by our command: names are the feature `id`."""
    pytest.importorskip("array_record")
    top = tmp_path_factory.mktemp("own_set")
    words = ["SRC", "DST", "--name=listed", "--workers=1", "--shard=5"]
    prepare.prepare(folder, top, prepare.make_parser().parse_args(words))
    return top


@pytest.fixture(scope="module")
def tfds_set(write_set, tfds):
    """As TFDS's imagenet2012: the feature `file_name`."""
    features = {
        "file_name": tfds.features.Text(),
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=WNIDS),
    }
    train = [
        {"file_name": name, "image": io.BytesIO(picture(value)), "label": c}
        for name, (value, c) in NAMES.items()
    ]
    return write_set("listed", features, {"train": train})


def write(tmp_path, *lines):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def contents(source):
    """`{(value of the pixels, label)}`."""
    read = (source.read(i) for i in range(len(source)))
    return {(int(decoding.decode(x)[0, 0, 0]), label) for x, label in read}


def tar_of(folder, tmp_path):
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "photos")
    return path


@pytest.mark.parametrize("kind", ["folder", "tars", "own set", "TFDS"])
def test_the_images_of_a_list(kind, folder, own_set, tfds_set, tmp_path):
    name, top = {
        "folder": ("folder", folder),
        "tars": ("tars", tar_of(folder, tmp_path)),
        "own set": ("listed", own_set),
        "TFDS": ("listed", tfds_set),
    }[kind]
    lists = {"train": write(tmp_path, *WANTED, "")}
    source = open_source(name, str(top), "train", lists=lists)
    assert contents(source) == {NAMES[name] for name in WANTED}
    assert source.class_names == WNIDS
    assert any(note.startswith("3 of the 12 images of ") for note in source.notes)
    whole = open_source(name, str(top), "train")
    places = [whole.where(i) for i in range(12)]
    kept = [places.index(source.where(i)) for i in range(3)]
    assert kept == sorted(kept)  # in the set's order
    halves = [
        open_source(name, str(top), part, lists=lists)
        for part in ("train[:67%]", "train[67%:]")
    ]
    assert [len(half) for half in halves] == [2, 1]
    assert set.union(*map(contents, halves)) == contents(source)
    if kind != "TFDS":
        assert len(open_source(name, str(top), "validation", lists=lists)) == 12


@pytest.mark.parametrize("kind", ["folder", "own set"])
@pytest.mark.parametrize(
    "lines, message",
    [
        ((*WANTED, *(f"n1_{i}.JPEG" for i in range(4))), MISSING),
        (
            (*WANTED, *WANTED[:2]),
            f"2 of the 5 lines of .* are there already, such as {WANTED[0]}, {WANTED[1]};",
        ),
        (
            (*WANTED, f"{WNIDS[0]}/{WANTED[0]}"),
            "has 1 images of .* twice, by their file's name and by a path",
        ),
        ((" ",), "is empty"),
    ],
)
def test_what_a_list_cannot_be(kind, lines, message, folder, own_set, tmp_path):
    name, top = ("folder", folder) if kind == "folder" else ("listed", own_set)
    lists = {"train": write(tmp_path, *lines)}
    with pytest.raises(UserError, match=f"config.data.list: .*{message}"):
        open_source(name, str(top), "train", lists=lists)


def test_names_that_several_images_have_need_their_folder(tmp_path):
    for kind in ("cats", "dogs"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "photos" / kind / f"{i}.png").write_bytes(picture(i))
    where = str(tmp_path / "photos")
    lists = {"train": write(tmp_path, "1.png")}
    with pytest.raises(UserError, match=r"1 of the 1 names .* fit several images"):
        open_source("folder", where, "train", lists=lists)
    lists = {"train": write(tmp_path, "dogs/1.png", "cats/2.png")}
    assert contents(open_source("folder", where, "train", lists=lists)) == {
        (1, 1),
        (2, 0),
    }


def test_a_list_needs_names_and_a_file(tmp_path):
    lists = {"train": write(tmp_path, "a.jpg")}
    with pytest.raises(UserError, match="images of fake 'train' have no file names"):
        open_source("fake", "", "train", lists=lists)
    with pytest.raises(UserError, match="config.data.list: .*none.txt can't be read"):
        open_source("fake", "", "train", lists={"train": str(tmp_path / "none.txt")})
    with pytest.raises(UserError, match="is for one split, but .* of test, train;"):
        openers.lists_of(lists["train"], "train[:9]+test")
    config = runs.small(data__list=lists["train"])
    with pytest.raises(UserError, match="config.data.list: data from Python"):
        openers.make_opener(config, {"image": np.zeros((9, 8, 8, 3), np.uint8)})


def config_of(folder, path, **changes):
    """A run on the folder's listed images; its k-NN learns from train, asks val."""
    return runs.small(
        data__name="folder",
        data__dir=str(folder),
        data__list=path,
        evals__knn__every_epochs=1.0,
        evals__knn__bank="train",
        evals__knn__queries="val",
        batch_size=2,
        **changes,
    )


def test_a_run_and_its_evaluators_see_the_list(folder, tmp_path):
    """Mixed with another set, in any order, on every start; other splits are whole."""
    config = config_of(folder, write(tmp_path, *WANTED))
    open_data = openers.make_opener(config)
    source, lines = train_data.open_data(config, open_data)
    assert (config.data.num_examples, config.data.num_classes) == (3, 2)
    assert any("3 of the 12 images" in line for line in lines)
    where = config.data.name, config.data.dir
    assert len(open_data(*where, "train[:2]")) == 2
    assert len(open_data(*where, "train")) == 3
    assert len(open_data(*where, "val")) == 12
    mixed = config_of(
        folder,
        config.data.list,
        data__mix=(("fake", "", "train", 1.0),),
        data__labels=False,
    )
    source, _ = train_data.open_data(mixed)
    assert len(source) == 3 + 1024 and source.parts[0] == (3, 1.0)
    numbers = dict(batch_size=8, seed=0, shard=(0, 1), threads=1, processes=0)
    streams = [
        pipeline.train_batches(
            source, start_step=start, **numbers, **train_data.augmentation(mixed.data)
        )
        for start in (0, 2)
    ]
    first = [next(streams[0]) for _ in range(3)][-1]
    np.testing.assert_array_equal(first["id"], next(streams[1])["id"])
    assert set(first["id"] < 3) == {True, False}  # of both sets
    for stream in streams:
        stream.close()


def test_another_list_is_another_fingerprint(folder, own_set, tmp_path):
    for name, top in (("folder", folder), ("listed", own_set)):
        marks = set()
        for some in (WANTED, WANTED[::-1], WANTED[:2], [*NAMES][:2], None):
            lists = {"train": write(tmp_path, *some)} if some else None
            source = open_source(name, str(top), "train", lists=lists)
            marks.add(card.fingerprint(source))
        assert len(marks) == 4  # the order of lines is none


def test_names_of_a_long_set_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def found():
        asked.append(1)
        return [f"{i}.JPEG" for i in range(names.LONG)]

    for about in (("a", 1), ("a", 1), ("a", 2)):
        assert names.remember(about, names.LONG, found)[-1] == "99999.JPEG"
    assert len(asked) == 2
    names.remember(("b", 1), names.LONG - 1, found)
    assert len(list((tmp_path / "vit_ssl_jax" / "names").iterdir())) == 2
