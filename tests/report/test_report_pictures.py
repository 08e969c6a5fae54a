"""Pictures of a workdir in a page: which, how large, and what is left out."""

import base64
import io

import numpy as np
from PIL import Image

from tests.report import made
from vit_ssl_jax.report import pictures


def decode(src):
    """The pixels of a data address."""
    head, _, content = src.partition(",")
    assert head.startswith("data:image/") and head.endswith(";base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_pictures_of_the_end_and_of_steps_are_found_in_order(tmp_path):
    for step in (100, 20, 3):
        made.picture(tmp_path / "pictures" / str(step) / "mae.png", shade=step)
    made.picture(tmp_path / "pictures" / "notes" / "mae.png")  # no step
    (tmp_path / "pictures" / "20" / "mae.txt").write_text("no picture")
    made.picture(tmp_path / "pictures.png", shade=7)
    found = pictures.find(tmp_path, 120)
    assert {k: [s for s, _ in v] for k, v in found.items()} == {
        "mae": [3, 20, 100],
        "pictures": [120],
    }
    shown, notes = pictures.read(found, 10**6)
    assert notes == []
    assert [decode(one["src"])[0, 0, 0] for one in shown["mae"]] == [3, 20, 100]
    assert shown["pictures"][0]["step"] == 120
    assert pictures.find(tmp_path / "none", 0) == {}


def test_a_small_file_is_shown_byte_by_byte_and_a_large_one_smaller(tmp_path):
    small = made.picture(tmp_path / "pictures" / "1" / "a.png", shade=9)
    large = tmp_path / "pictures" / "1" / "b.png"
    made.picture(large, noise=True, size=(3200, 100))
    assert large.stat().st_size > pictures.PLAIN
    shown, notes = pictures.read(pictures.find(tmp_path, 0), 10**7)
    assert shown["a"][0]["src"].endswith(base64.b64encode(small).decode())
    assert shown["b"][0]["src"].startswith("data:image/webp;base64,")
    assert decode(shown["b"][0]["src"]).shape == (50, pictures.WIDE, 3)
    assert notes == []


def test_too_many_pictures_are_left_out_evenly_and_told(tmp_path):
    for step in range(20):
        file = tmp_path / "pictures" / str(step) / "a.png"
        size = len(made.picture(file, noise=True, shade=step))
    made.picture(tmp_path / "pictures" / "0" / "torn.png")
    (tmp_path / "pictures" / "0" / "torn.png").write_bytes(b"\x89PNG\r\n torn")
    most = 7 * (4 * size // 3)
    shown, notes = pictures.read(pictures.find(tmp_path, 0), most)
    steps = [one["step"] for one in shown["a"]]
    assert sum(len(one["src"]) for one in shown["a"]) <= most
    assert steps[0] == 0 and steps[-1] == 19 and 4 <= len(steps) <= 6
    assert np.diff(steps).max() <= 10
    assert "torn" not in shown
    assert notes[0] == "1 pictures that can't be read, such as 0/torn.png"
    assert notes[1].startswith(f"{20 - len(steps)} of 21 pictures, for their size")


def test_the_order_of_steps_goes_from_coarse_to_fine():
    for count in range(40):
        order = pictures.spread(count)
        assert sorted(order) == list(range(count))
        if count > 2:
            assert set(order[:2]) == {0, count - 1}
    assert pictures.spread(9) == [8, 0, 5, 3, 6, 2, 4, 1, 7]
