"""The data of a suite's tasks: the same on all hosts, or an end that names one."""

import copy

import pytest

from tests import runs
from vit_ssl_jax import tasks
from vit_ssl_jax.errors import UserError

MISSING = "config.tasks.b: no folder /data/b"


def hosts(count=3):
    """What hosts say that have task a, and none of which has b."""
    have = dict(missing="", splits={"train": [9, "x"], "test": [4, "y"]})
    found = dict(a=have, b=dict(missing=MISSING, splits={}))
    return [dict(host=f"h{i}", found=copy.deepcopy(found)) for i in range(count)]


def test_what_is_missing_everywhere_is_fine():
    tasks.check_alike(hosts())


@pytest.mark.parametrize("place", [0, 2])
def test_what_one_lacks_is_told_with_its_name(place):
    said = hosts()
    said[place]["found"]["a"] = dict(missing="config.tasks.a: gone", splits={})
    other = f"process {1 if place == 0 else 0} on h{1 if place == 0 else 0}"
    words = f"process {place} on h{place} lacks what {other} has: config.tasks.a: gone"
    with pytest.raises(UserError, match=words):
        tasks.check_alike(said)


@pytest.mark.parametrize("value", [[8, "x"], [9, "z"]])
def test_other_images_are_told(value):
    said = hosts()
    said[1]["found"]["a"]["splits"]["train"] = value
    words = (
        rf"a: train is not the same .* {value[0]} images on h1 \(process 1\), 9 on h0"
    )
    with pytest.raises(UserError, match=words):
        tasks.check_alike(said)


def test_a_set_is_known_by_its_classes_and_names_wherever_it_lies(tmp_path):
    from PIL import Image

    for place in "here", "there":
        for i in range(8):
            split = tmp_path / place / "photos" / ("train", "test")[i // 4]
            file = split / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)
    config = runs.load("eval_quickstart.py").copy_and_resolve_references()

    def look(place):
        folder = str(tmp_path / place / "photos")
        config.tasks.embedded.update(dict(set="folder", dir=folder, test="test"))
        return tasks.look(config, "embedded")

    assert look("here") == look("there")
    assert look("here")["splits"]["train"][0] == 4
    (tmp_path / "there" / "photos" / "train" / "a" / "0.png").rename(
        tmp_path / "there" / "photos" / "train" / "a" / "9.png"
    )
    assert look("here") != look("there")
    assert "config.tasks.embedded: " in look("nowhere")["missing"]
