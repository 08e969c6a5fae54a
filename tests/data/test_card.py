"""The data card: sizes, what training does with them, copies, the fingerprint."""

import os

import numpy as np
import pytest
from PIL import Image

from vit_ssl_jax import recipes
from vit_ssl_jax.data import card, memory, reading, sources


@pytest.fixture
def photos(tmp_path):
    """Twelve photos of 40x30 in a folder of their own."""
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def make(top, **changes):
    config = recipes.load("quickstart.py:mae", **changes)
    return card.make_card(sources.open_source("folder", str(top), "train"), config.data)


def test_sizes_and_the_way_of_an_image(photos):
    made = make(photos)
    assert (made["images"], made["looked_at"], made["unreadable"]) == (12, 12, 0)
    assert made["heights_widths"]["median"] == [30, 40]
    assert made["training"] == "30x40 -> a crop of 30-100 % of it -> 32x32"
    assert card.describe(made)[0].startswith(
        "data: heights x widths from 30x40 to 30x40"
    )
    way = make(photos, **{"data.crop": (), "data.resize": 36})["training"]
    assert way == "30x40 -> short side 36 -> a crop -> 32x32"


def test_what_deserves_a_warning_is_said(photos):
    Image.new("RGB", (400, 300)).save(photos / "12.png")
    (photos / "13.png").write_bytes((photos / "3.png").read_bytes())
    (photos / "14.png").write_text("no image")
    pages = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    pages[0].save(photos / "15.tif", save_all=True, append_images=pages[1:])
    lines = "\n".join(card.describe(make(photos)))
    assert "1 of 16 images have several pages" in lines and "15.tif" in lines
    assert "1 of 16 images looked at can't be read" in lines
    assert "1 images are copies of others" in lines and "13.png = " in lines
    small = make(photos, **{"data.size": (4, 4), "data.resize": 4})
    assert "note: images shrink 6.0 times" in "\n".join(card.describe(small))


def test_the_fingerprint_tells_other_files_apart(photos):
    before = make(photos)["fingerprint"]
    assert make(photos)["fingerprint"] == before
    file = photos / "0.png"
    os.utime(file, (1, 1))
    other = make(photos)["fingerprint"]
    assert other != before
    file.rename(photos / "zero.png")
    assert make(photos)["fingerprint"] not in (before, other)


def test_data_without_files_has_a_card_too():
    config = recipes.load("quickstart.py:mae")
    made = card.make_card(sources.open_source("fake", "", "train"), config.data)
    assert made["heights_widths"]["most"] == [32, 32] and made["copies"] is None


def read_all(source):
    return [reading.try_to_read(source, i)[0] for i in range(len(source))]


def test_a_small_folder_is_decoded_once(photos, monkeypatch):
    source = sources.open_source("folder", str(photos), "train")
    kept, line = memory.keep_decoded(source, 1.0)
    before = read_all(source)
    np.testing.assert_array_equal(read_all(kept), before)
    for file in photos.iterdir():
        file.unlink()
    np.testing.assert_array_equal(read_all(kept), before)
    assert "12 images stay in memory" in line and "config.data.cache_gib=1" in line


def test_what_does_not_fit_is_shrunk_or_left(photos):
    source = sources.open_source("folder", str(photos), "train")
    little = 12 * 30 * 40 * 3 / 2**31  # half of it
    assert memory.keep_decoded(source, little) == (source, "")
    assert memory.keep_decoded(source, 0.0) == (source, "")
    kept, line = memory.keep_decoded(source, little, side=15)
    assert "shrunk to a short side of 15 px" in line
    assert {image.shape for image in read_all(kept)} == {(15, 20, 3)}
    assert memory.keep_decoded(source, little / 100, side=15) == (source, "")
