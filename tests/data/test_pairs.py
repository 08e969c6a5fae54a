"""Images with maps: layouts as they are downloaded, TFDS sets, batches, bad input."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax.data import joint, maps, pairs
from vit_ssl_jax.errors import UserError

KIND = maps.Classes(5)
HOW = joint.Joint(size=(16, 16), short=0, scale=(0.5, 2.0), flip=True)


def pair(i, shape=(20, 24)):
    """An image of one colour and a map of one class, both telling the number."""
    image = np.full((*shape, 3), 40 * (i % 5), np.uint8)
    return Image.fromarray(image), Image.fromarray(np.full(shape, i % 5, np.uint8))


def save(folder, i, image_name, map_name):
    """Writes pair i."""
    for name, image in zip((image_name, map_name), pair(i), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)


@pytest.fixture
def ade(tmp_path):
    """ADEChallengeData2016 with ten pairs to train and three to judge."""
    top = tmp_path / "ADEChallengeData2016"
    for split, count in (("training", 10), ("validation", 3)):
        for i in range(count):
            save(
                top,
                i,
                f"images/{split}/ADE_{i}.jpg",
                f"annotations/{split}/ADE_{i}.png",
            )
    return top


def classes(source):
    """The one class of each pair, and that of its image."""
    found = []
    for i in range(len(source)):
        image, read, _ = pairs.read_pair(source, i, KIND)
        assert (read == read[0, 0]).all()
        found.append((round(image.mean() / 40), int(read[0, 0])))
    return found


def test_ade20ks_folders_are_read_from_above_and_within(ade):
    for top in (ade, ade.parent):
        source = pairs.open_pairs("folder", str(top), "training")
        assert classes(source) == [(i % 5, i % 5) for i in range(10)]
    assert len(pairs.open_pairs("folder", str(ade), "training[:30%]+validation")) == 6
    (ade / "annotations").rename(ade / "maps")
    assert len(pairs.open_pairs("folder", str(ade), "validation")) == 3


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit/VOC2012; an image without a map is in no list."""
    top = tmp_path / "VOCdevkit" / "VOC2012"
    for i in range(6):
        save(top, i, f"JPEGImages/2007_{i}.jpg", f"SegmentationClass/2007_{i}.png")
        read = pair(i)[1].convert("P")
        read.putpalette([(i * 37 + 5) % 256 for i in range(768)])
        read.save(top / f"SegmentationClass/2007_{i}.png")
    lists = top / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_4\n2007_1\n\n")
    (lists / "val.txt").write_text("2007_0\n2007_3\n")
    pair(9)[0].save(top / "JPEGImages" / "2008_9.jpg")
    return tmp_path


def test_vocs_lists_tell_the_splits_and_palettes_the_classes(voc):
    for top in (voc, voc / "VOCdevkit" / "VOC2012"):
        source = pairs.open_pairs("voc", str(top), "train")
        assert classes(source) == [(4, 4), (1, 1)]
    assert len(pairs.open_pairs("voc", str(voc), "train+val")) == 4


@pytest.fixture
def nyu(tmp_path):
    """NYU as BTS hands it out."""
    lines = []
    for i in range(4):
        save(tmp_path, i, f"den_1/rgb_{i}.jpg", f"den_1/sync_depth_{i}.png")
        depth = np.full((20, 24), 1000 * (i + 1), np.uint16)
        Image.fromarray(depth).save(tmp_path / f"den_1/sync_depth_{i}.png")
        lines.append(f"/den_1/rgb_{i}.jpg /den_1/sync_depth_{i}.png 518.8579")
    lines.append("/den_1/rgb_9.jpg None 518.8579")
    (tmp_path / "nyu_train.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_nyus_list_names_images_and_depths(nyu):
    source = pairs.open_pairs("nyu", str(nyu), "train")
    assert [note for note in source.notes if "1 images of" in note]
    depths = [pairs.read_pair(source, i, maps.Depth())[1] for i in range(4)]
    assert [d.min() for d in depths] == [d.max() for d in depths] == [1, 2, 3, 4]


def test_what_is_wrong_with_folders_is_told(ade, voc, nyu, tmp_path):
    def said(name, directory, split, **more):
        with pytest.raises(UserError) as error:
            pairs.open_pairs(name, str(directory), split, **more)
        return str(error.value)

    assert "no split 'test': choose training, validation" in said("folder", ade, "test")
    assert "images and maps need it both" in said("folder", ade, "test")
    (ade / "annotations" / "validation" / "ADE_1.png").unlink()
    text = said("folder", ade, "validation")
    assert "1 of 3 images have no map in" in text and "ADE_1.jpg" in text
    (ade / "annotations").rename(ade / "labels")
    assert "has images but no maps" in said("folder", ade, "training")
    assert "are read from a disk" in said("folder", "gs://bucket/ade", "x")
    assert "voc is read from a folder, and none is given" in said("voc", "", "x")
    assert "there is no split 'test'" in said("voc", voc, "test")
    (voc / "VOCdevkit/VOC2012/SegmentationClass/2007_3.png").unlink()
    assert "1 of 2 images have no map in" in said("voc", voc, "val")
    (voc / "VOCdevkit/VOC2012/JPEGImages/2007_1.jpg").unlink()
    assert "1 of the 2 images of the list are missing" in said("voc", voc, "train")
    assert "has no nyu_test.txt" in said("nyu", nyu, "test")
    (nyu / "nyu_test.txt").write_text("one.jpg\n")
    assert "isn't understood; a line is an image" in said("nyu", nyu, "test")
    assert "label: 'a' chooses among" in said("nyu", nyu, "test", label="a")


def test_maps_of_another_size_and_unknown_classes_are_told_with_their_image(ade):
    source = pairs.open_pairs("folder", str(ade), "training")
    path = ade / "annotations" / "training" / "ADE_9.png"
    pair(1, shape=(20, 23))[1].save(path)
    with pytest.raises(
        UserError, match=r"ADE_9.jpg: its map has 20 x 23 px, the image "
    ):
        pairs.check(source, KIND)
    with pytest.raises(UserError, match="its map has 20 x 23 px"):
        list(pairs.in_order(source, KIND))
    pair(1)[0].save(path)
    with pytest.raises(UserError, match=r"ADE_9.jpg: its map is in colours \(RGB\)"):
        pairs.check(source, KIND)
    pair(4)[1].save(path)
    pairs.check(source, KIND)
    with pytest.raises(UserError, match="has class 4, but the 4 classes are 0 to 3"):
        pairs.check(source, maps.Classes(4))


def test_batches_depend_on_seed_and_step_and_shards_are_parts_of_them(ade):
    source = pairs.open_pairs("folder", str(ade), "training")

    def take(count, **more):
        made = pairs.train_batches(source, KIND, HOW, batch_size=4, seed=3, **more)
        return list(itertools.islice(made, count))

    whole = take(5, threads=1)
    assert {k: (v.shape, v.dtype) for k, v in whole[0].items()} == {
        "image": ((4, 16, 16, 3), np.uint8),
        "map": ((4, 16, 16), np.uint8),
        "id": ((4,), np.int32),
    }
    later = take(2, start_step=3, threads=3)
    halves = [take(5, shard=(i, 2)) for i in range(2)]
    for key in whole[0]:
        np.testing.assert_array_equal(later[1][key], whole[4][key])
        joined = np.concatenate([half[4][key] for half in halves])
        np.testing.assert_array_equal(joined, whole[4][key])
    for batch in whole:
        known = batch["map"] != maps.IGNORED
        colours = batch["image"][..., 0] / 40
        assert (np.abs(colours - batch["map"])[known] < 0.3).all()


def test_a_broken_image_is_replaced_or_left_out(ade):
    (ade / "images" / "training" / "ADE_2.jpg").write_bytes(b"\xff\xd8broken")
    source = pairs.open_pairs("folder", str(ade), "training")
    assert pairs.read_pair(source, 2, KIND)[2] == 3
    assert [i for _, _, i in pairs.in_order(source, KIND)] == [0, 1, *range(3, 10)]
    assert source.broken == {2}


@pytest.fixture(scope="module")
def prepared(write_set, tfds):
    """A set like scene_parse150 and one like nyu_depth_v2, as TFDS prepares them."""

    def file(image):
        out = io.BytesIO()
        image.save(out, "PNG")
        out.seek(0)
        return out

    examples = [
        dict(zip(("image", "annotation"), map(file, pair(i)))) for i in range(4)
    ]
    features = {k: tfds.features.Image() for k in ("image", "annotation")}
    scenes = write_set("scenes", features, {"train": examples})
    depth = np.float16(np.arange(480).reshape(20, 24) / 48)
    rooms = [{"image": file(pair(i)[0]), "depth": depth} for i in range(2)]
    features = {
        "image": tfds.features.Image(shape=(20, 24, 3)),
        "depth": tfds.features.Tensor(shape=(20, 24), dtype=np.float16),
        "room": tfds.features.Text(),
    }
    rooms = [room | {"room": "den"} for room in rooms]
    return scenes, write_set("rooms", features, {"train": rooms}), depth


def test_sets_of_tfds_have_their_map_as_a_feature(prepared):
    scenes, rooms, depth = prepared
    source = pairs.open_pairs("scenes", str(scenes), "train")
    assert sorted(classes(source)) == [(i, i) for i in range(4)]
    named = pairs.open_pairs("scenes", str(scenes), "train", label="annotation")
    assert len(named) == 4
    source = pairs.open_pairs("rooms", str(rooms), "train")
    found = pairs.read_pair(source, 0, maps.Depth())[1]
    np.testing.assert_array_equal(found, np.float32(depth))
    with pytest.raises(UserError, match="has no map 'room'; choose depth"):
        pairs.open_pairs("rooms", str(rooms), "train", label="room")


def test_a_set_of_tfds_without_maps_is_told(write_set, tfds):
    image, _ = pair(0)
    out = io.BytesIO()
    image.save(out, "PNG")
    out.seek(0)
    features = {"image": tfds.features.Image(), "label": tfds.features.Text()}
    top = write_set("boxes", features, {"train": [{"image": out, "label": "a"}]})
    with pytest.raises(UserError, match="can be maps are none .*take set='voc'"):
        pairs.open_pairs("boxes", str(top), "train")
