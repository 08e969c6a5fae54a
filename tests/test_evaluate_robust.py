"""Classifiers on ImageNet's variants: folders of WordNet ids, as the model was trained."""

import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests import runs
from vit_ssl_jax import (
    evaluate,
    finished,
    judging,
    partition,
    recipes,
    tasks,
    train,
)
from vit_ssl_jax.data import imagenet
from vit_ssl_jax.ops import images

SIDE = 16
CHOSEN = 900, 3, 251  # of ImageNet's classes


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run with a head of 1,000 classes, evaluated bilinearly at 20 px, two steps."""
    config = runs.load("pretext_cpu.py", "supervised")
    config.update_from_flattened_dict(
        {f"evals.{name}.every_epochs": -1.0 for name in config.evals}
        | {
            "vit.variant": "2x32x2/8",
            "data.size": (SIDE, SIDE),
            "data.resize": 20,
            "data.interpolation": "bilinear",
            "batch_size": 16,
            "steps": 2,
            "summary": False,
            "health.every": 0,
        }
    )
    config.method.head_std = 1.0
    rng = np.random.default_rng(0)
    data = {
        "image": rng.integers(0, 256, (1000, SIDE, SIDE, 3), np.uint8),
        "label": np.arange(1000),
    }
    workdir = tmp_path_factory.mktemp("thousand")
    train.train(config, workdir, data)
    return workdir


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """ImageNet-A in small, and one severity of one corruption; pixels by file."""
    top, rng = tmp_path_factory.mktemp("variants"), np.random.default_rng(1)
    for where, size in (
        ("imagenet-a", 32),
        ("imagenet-c/fog/3", SIDE),
    ):
        for number in CHOSEN:
            folder = top / where / imagenet.wnids()[number]
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return top


def logits_of(workdir):
    """The trained model's `logits(uint8 [B H W 3])`."""
    trained = finished.read_trained(workdir)
    mesh = partition.make_mesh(finished.MESH)
    model, state = finished.load_model(trained, mesh)

    @jax.jit
    def logits(pixels):
        image = model.normalize(images.to_float(pixels))
        return model.method.logits(state.params, image)

    return logits


def top1(folder, logits):
    """By numpy: of three logits the largest; images are cut from 20 px or as they are."""
    right, pixels = [], []
    for number in CHOSEN:
        for i in range(4):
            image = Image.open(folder / imagenet.wnids()[number] / f"{i}.png")
            if image.size[0] != SIDE:
                image = image.resize((20, 20), Image.Resampling.BILINEAR)
                image = image.crop((2, 2, 18, 18))
            pixels.append(np.asarray(image))
            right.append(number)
    best = np.argmax(np.asarray(logits(np.stack(pixels)))[:, CHOSEN], axis=1)
    return np.mean(np.array(CHOSEN)[best] == right)


def test_the_sets_that_are_there_are_judged_by_their_classes(
    classifier, folders, capsys
):
    config = recipes.load(f"eval_robust.py:{folders}")
    (found,) = evaluate.evaluate(config, str(classifier)).values()
    logits = logits_of(classifier)
    for task, folder in (("imagenet_a", "imagenet-a"), ("fog_3", "imagenet-c/fog/3")):
        want = top1(folders / folder, logits)
        assert found[f"{task}/classify/top1"] == pytest.approx(want)
        assert found[f"{task}/classify/top5"] == 1.0  # of three that compete
    assert not any("mce" in name or name.startswith("imagenet_c") for name in found)
    said = capsys.readouterr().out
    assert "task imagenet_a: short side 20, bilinear, as the model was trained" in said
    assert "task fog_3: short side 16, bilinear, as the model was trained" in said
    assert said.count("task brightness_1 is off: ") == 1
    assert "73 more tasks of imagenet_c (folder) are off, too" in said
    assert "task imagenet_r is off: config.tasks.imagenet_r: image folder" in said


@pytest.mark.parametrize(
    "task, want",
    [
        (dict(resize=-1, squash=False, interpolation=""), (32, True, "bilinear")),
        (dict(resize=0, squash=False, interpolation="bicubic"), (24, False, "bicubic")),
        (dict(resize=30, squash=True, interpolation=""), (30, True, "bilinear")),
    ],
)
def test_what_a_task_leaves_open_is_as_in_training(task, want):
    trained = types.SimpleNamespace(
        size=(12, 12), resize=16, squash=True, interpolation="bilinear"
    )
    found = judging.prepared_as(ConfigDict(task), trained, (24, 24))
    assert tuple(found[k] for k in ("resize", "squash", "interpolation")) == want


def test_a_list_is_for_what_is_learned_from(tmp_path):
    """A task's folder has its training images by name, its test images whole."""
    names = []
    for split, count in (("train", 6), ("test", 3)):
        for kind in ("cats", "dogs"):
            folder = tmp_path / "set" / split / kind
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8)).save(folder / f"{kind}{i}.png")
                names += [f"{kind}{i}.png"] if split == "train" and i % 2 else []
    (tmp_path / "list.txt").write_text("\n".join(names))
    task = dict(
        set="folder",
        dir=str(tmp_path / "set"),
        list=str(tmp_path / "list.txt"),
        train="train[:50%]",
        select="train[50%:]",
        test="test",
    )
    opened = tasks.opener(ConfigDict(task))
    sizes = [len(opened("folder", task["dir"], s)) for s in ("train[:50%]", "test")]
    assert sizes == [3, 6]
