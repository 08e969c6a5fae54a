"""Folders and archives into shards: the same images and labels, resumable, checked."""

import io
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax.data import archives, decoding, prepare, records, sources
from vit_ssl_jax.errors import UserError

pytest.importorskip("array_record")
CLASSES = ("n01440764", "n01443537", "n01484850")


def picture(number, size=(24, 20)):
    """A PNG all of whose pixels are a number."""
    file = io.BytesIO()
    Image.new("RGB", size, (number, number, number)).save(file, "PNG")
    return file.getvalue()


def add(archive, name, content):
    """Adds a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def pack(path, files):
    """A tar of `{name: bytes}`."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return path


def give(*words):
    """Options of the command."""
    return prepare.make_parser().parse_args(["SRC", "DST", *words])


def contents(name, top, split):
    """`{number in the pixels: class}` of a prepared split."""
    source = sources.open_source(name, str(top), split)
    found = {}
    for i in range(len(source)):
        image, label = source.read(i)
        pixels = decoding.decode(image)
        found[int(pixels[0, 0, 0])] = source.class_names[label] if label >= 0 else ""
    assert len(found) == len(source)
    return found


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's two archives in small: a tar of tars, and a tar with a file of labels."""
    top = tmp_path / "official"
    top.mkdir()
    inner = {}
    for c, name in enumerate(CLASSES):
        files = {f"{name}_{i}.JPEG": picture(10 * c + i) for i in range(4)}
        inner[f"{name}.tar"] = pack(tmp_path / name, files).read_bytes()
    pack(top / "ILSVRC2012_img_train.tar", inner)
    val = {f"ILSVRC2012_val_{i:08}.JPEG": picture(100 + i) for i in range(5)}
    pack(top / "ILSVRC2012_img_val.tar", val)
    (tmp_path / "truth.csv").write_text(
        "filename,label\n"
        + "".join(f"{name},{CLASSES[i % 3]}\n" for i, name in enumerate(val))
    )
    return top


def test_imagenets_archives_need_no_unpacking(imagenet, tmp_path):
    labels = f"--labels={tmp_path / 'truth.csv'}"
    options = give(labels, "--name=small", "--workers=1", "--shard=5")
    prepare.prepare(imagenet, tmp_path / "sets", options)
    train = contents("small", tmp_path / "sets", "train")
    assert train == {10 * c + i: CLASSES[c] for c in range(3) for i in range(4)}
    validation = contents("small", tmp_path / "sets", "validation")
    assert validation == {100 + i: CLASSES[i % 3] for i in range(5)}


def test_a_tar_a_class_and_webdataset(tmp_path):
    one, other = tmp_path / "classes", tmp_path / "web"
    one.mkdir()
    other.mkdir()
    for c, name in enumerate(CLASSES):
        pack(one / f"{name}.tar", {f"{i}.png": picture(10 * c + i) for i in range(3)})
    files = {}
    for i in range(6):
        files |= {f"{i:06}.png": picture(i), f"{i:06}.cls": str(i % 2).encode()}
    pack(other / "train-000000.tar", files)
    for src in (one, other):
        prepare.prepare(src, tmp_path / "sets", give("--workers=1"))
    found = contents("classes", tmp_path / "sets", "train")
    assert found == {10 * c + i: CLASSES[c] for c in range(3) for i in range(3)}
    assert contents("web", tmp_path / "sets", "train") == {
        i: str(i % 2) for i in range(6)
    }


@pytest.fixture
def folder(tmp_path):
    """Two classes of 8 images, one of which is broken, in two splits."""
    top = tmp_path / "photos"
    for number in range(32):
        split, name = ("train", "val")[number % 2], ("cat", "dog")[number // 2 % 2]
        path = top / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (top / "train" / "cat" / "0.png").write_bytes(b"no image")
    return top


def test_a_folder_keeps_its_labels_and_loses_what_is_broken(folder, tmp_path):
    said = []
    options = give("--workers=1", "--shard=3")
    prepare.prepare(folder, tmp_path / "sets", options, said.append)
    found = contents("photos", tmp_path / "sets", "train")
    assert found == {n: ("cat", "dog")[n // 2 % 2] for n in range(2, 32, 2)}
    assert "train: 15 images in 6 files" in said
    done = tmp_path / "sets" / "photos" / "1.0.0"
    assert "cat/0.png: " in (done / "broken.txt").read_text()


def test_some_of_every_class(folder, tmp_path):
    options = give("--workers=1", "--max_per_class=3")
    prepare.prepare(folder, tmp_path / "sets", options)
    found = contents("photos", tmp_path / "sets", "validation")
    assert sorted(found.values()) == 3 * ["cat"] + 3 * ["dog"]


def test_larger_images_are_shrunk(tmp_path):
    (tmp_path / "a").mkdir()
    for i, size in enumerate([(90, 60), (20, 10)]):
        (tmp_path / "a" / f"{i}.png").write_bytes(picture(200, size))
    prepare.prepare(
        tmp_path / "a", tmp_path / "sets", give("--workers=1", "--resize=32")
    )
    source = sources.open_source("a", str(tmp_path / "sets"), "train")
    shapes = {decoding.decode(source.read(i)[0]).shape for i in range(2)}
    assert shapes == {(32, 48, 3), (10, 20, 3)}


def test_a_killed_command_goes_on(folder, tmp_path):
    """To the same files as one that was never stopped; another set isn't mixed in."""
    words = ["--workers=1", "--shard=2"]
    prepare.prepare(folder, tmp_path / "straight", give(*words))
    command = [sys.executable, "-m", "vit_ssl_jax.data.prepare", str(folder)]
    command += [str(tmp_path / "again"), *words]
    how = dict(cwd=runs.ROOT, env=runs.environment(1))
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
    done, deadline = tmp_path / "again" / "photos" / "1.0.0", time.time() + 60
    while not list(done.glob("*array_record*")) and time.time() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    output, _ = killed.communicate(timeout=20)  # its workers end, too
    assert "written" not in output
    assert not (done / "dataset_info.json").exists()
    last = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert last.returncode == 0, last.stderr
    straight = tmp_path / "straight" / "photos" / "1.0.0"
    for file in straight.glob("[!.]*"):
        assert (done / file.name).read_bytes() == file.read_bytes(), file.name
    with pytest.raises(UserError, match="was begun with other resize"):
        prepare.prepare(folder, tmp_path / "again", give(*words, "--resize=8"))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("cut", "damaged or only a part"),
        ("no end", "has no end, as half a download"),
        ("trick", "'../../evil.png' leads out of the archive"),
        ("absolute", "'/etc/evil.png' leads out of the archive"),
        ("packed", "is packed"),
        ("twice", "0.png is there twice"),
        ("empty", "no images in"),
        ("missing", "doesn't exist"),
    ],
)
def test_bad_archives_are_one_message(tmp_path, case, said):
    path = tmp_path / "photos.tar"
    names = dict(trick="../../evil.png", absolute="/etc/evil.png", empty="a.txt")
    pack(path, {names.get(case, "0.png"): np.random.bytes(5000)})
    if case == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    if case == "no end":
        path.write_bytes(path.read_bytes()[:6144])
    if case == "twice":
        with tarfile.open(path, "a") as archive:
            add(archive, "./0.png", b"1")
    if case == "packed":
        path = path.rename(tmp_path / "photos.tar.gz")
    if case == "missing":
        path.unlink()
    with pytest.raises(UserError, match=said):
        prepare.prepare(path, tmp_path / "sets", give())
    assert not (tmp_path / "sets").exists()


def test_an_index_finds_every_byte(imagenet):
    images, _ = archives.index(imagenet)
    assert len(images) == 17
    name = "train/n01443537/n01443537_2.JPEG"
    assert images[name].read() == picture(12)


def test_records_are_what_protobuf_reads():
    """By TFDS's own parser: bytes, and whole numbers of either sign."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {"a": tfds.features.Text(), "n": np.int64, "m": np.int64}
    )
    record = records.example({"a": b"x" * 300, "n": -1, "m": 1 << 40})
    found = features.deserialize_example_np(record)
    assert (found["a"], found["n"], found["m"]) == (b"x" * 300, -1, 1 << 40)


@pytest.mark.parametrize("places", [("gs://bucket/set", "out"), ("set", "gs://out")])
def test_a_store_is_refused_before_anything_is_written(places):
    with pytest.raises(UserError, match="SRC and DST are on a disk"):
        prepare.prepare(*places, give())
