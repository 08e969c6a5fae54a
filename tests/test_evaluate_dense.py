"""Segmentation and depth by the evaluate command: small sets in, what they say out."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import runs
from tests.distributed import test_evaluating
from vit_ssl_jax import evaluate, judging, train
from vit_ssl_jax.errors import UserError

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
HEAD = dict(batch_size=8, steps=40, warmup=4, checkpoint_every=1000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of MAE after a step: a ViT whose patches are all but pixels."""
    folder = tmp_path_factory.mktemp("trained") / "mae"
    train.train(runs.small("mae", steps=1), folder)
    return folder


def scene(rng, h, w):
    """Squares of 16 px in one of three colours; their classes from 0 on."""
    cells = rng.integers(0, 3, (-(-h // 16), -(-w // 16)))
    classes = cells.repeat(16, 0).repeat(16, 1)[:h, :w]
    image = COLOURS[classes] + rng.integers(-30, 30, (h, w, 3))
    return image.astype(np.uint8), classes.astype(np.uint8)


@pytest.fixture(scope="module")
def ade(tmp_path_factory):
    """ADE20K's layout: 0 is no class; images of several sizes."""
    top, rng = tmp_path_factory.mktemp("ade"), np.random.default_rng(0)
    for split, count in (("training", 16), ("validation", 5)):
        for kind in ("images", "annotations"):
            (top / kind / split).mkdir(parents=True)
        for i in range(count):
            image, classes = scene(rng, *((64, 96), (80, 64), (64, 64))[i % 3])
            read = classes + 1
            read[:5], image[:5] = 0, 255
            Image.fromarray(image).save(top / "images" / split / f"{i}.jpg", quality=95)
            Image.fromarray(read).save(top / "annotations" / split / f"{i}.png")
    return top


@pytest.fixture(scope="module")
def nyu(tmp_path_factory):
    """NYU's lists: the redder, the farther; rows that were not measured."""
    top, rng = tmp_path_factory.mktemp("nyu"), np.random.default_rng(0)
    (top / "den").mkdir()
    for split, count in (("train", 16), ("test", 5)):
        lines = []
        for i in range(count):
            far = rng.uniform(1, 9, (2, 2)).repeat(24, 0).repeat(32, 1)
            image = np.stack([25 * far, 100 + 0 * far, 250 - 25 * far], -1)
            depth = np.uint16(1000 * far)
            depth[:4] = 0
            names = f"den/{split}_{i}.jpg", f"den/{split}_{i}.png"
            Image.fromarray(np.uint8(image)).save(top / names[0], quality=95)
            Image.fromarray(depth).save(top / names[1])
            lines.append(f"/{names[0]} /{names[1]} 518.8579")
        (top / f"nyu_{split}.txt").write_text("\n".join(lines))
    return top


def suite(name, directory, task=(), **changes):
    """`eval_dense.py:NAME` on a small set; `changes` of its evaluator."""
    config = runs.load("eval_dense.py", name).copy_and_resolve_references().unlock()
    config.tasks[name].update(dict(dir=str(directory)) | dict(task))
    config.evals[next(iter(config.evals))].update(HEAD | changes)
    return config


def segmentation(ade, task=(), **changes):
    """ADE20K with windows of 64 px, as the encoder is small."""
    size = dict(size=(64, 64), resize=64)
    small = dict(classes=3, stride=24, rate=0.02, **changes)
    return suite("ade20k", ade, size | dict(task), **small)


def depth(nyu, task=(), **changes):
    """NYU with whole images of 48 x 64 px and crops of 40 x 48."""
    small = dict(crop=(40, 48), border=(0, 48, 0, 64), judged=(4, 48, 0, 60))
    small |= dict(norm=True, rate=0.05, distortion="", warm=5, steps=60)
    small |= dict(cls=False) | changes
    return suite("nyu", nyu, dict(size=(48, 64)) | dict(task), **small)


def judge(config, trained, out, say=print):
    """`evaluate` of one checkpoint: metrics by the last part of their name."""
    found = evaluate.evaluate(config, str(trained), out, say)
    return {k: v for results in found.values() for k, v in results.items()}


def short(results):
    """Metrics by the last part of their name."""
    return {key.rpartition("/")[2]: value for key, value in results.items()}


@pytest.fixture(scope="module")
def judged(trained, ade, tmp_path_factory):
    """What a whole training of ADE20K's head comes to."""
    return judge(segmentation(ade), trained, tmp_path_factory.mktemp("judged"))


NAME = "ade20k/segmentation/layers-1_norm_lr0.02_wd0.0001_poly_s40_b8/miou"


def test_classes_that_patches_tell_are_found(judged):
    assert judged[NAME] > 0.9
    assert short(judged)["pixel_accuracy"] > 0.95


def test_the_command_on_one_device_says_the_same(judged, trained, ade, tmp_path):
    config, flags = segmentation(ade), []
    for key, value in {**config.tasks.ade20k, **config.evals.segmentation}.items():
        place = "tasks.ade20k" if key in config.tasks.ade20k else "evals.segmentation"
        flags.append(f"--config.{place}.{key}={value}")
    command = [sys.executable, "-m", "vit_ssl_jax.evaluate"]
    command += ["--config=configs/eval_dense.py:ade20k", f"--checkpoint={trained}"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path / 'one'}", *flags],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {NAME} | " in done.stdout
    (file,) = (tmp_path / "one" / "evaluations").glob("*.json")
    assert json.loads(file.read_text())["results"] == pytest.approx(judged, abs=2e-3)


@pytest.mark.slow
def test_depths_that_patches_tell_are_found(trained, nyu, tmp_path):
    found = short(judge(depth(nyu), trained, tmp_path))
    assert found["rmse"] < 1.2 and found["delta1"] > 0.8  # metres spread by 2.3


def test_a_stopped_head_goes_on_at_the_exact_step(
    judged, trained, ade, tmp_path, monkeypatch
):
    config, stop, said = segmentation(ade, checkpoint_every=3), [], []

    def say(line):
        said.append(line)
        if line.startswith("head: step 8 of 40"):
            stop.append(15)  # as a signal does

    with monkeypatch.context() as patch:
        patch.setattr(judging, "stop_on_signal", lambda: contextlib.nullcontext(stop))
        assert judge(config, trained, tmp_path, say) == {}
    assert "head: stopped at step 8 of 40" in said
    said.clear()
    assert judge(config, trained, tmp_path, said.append) == judged
    steps = [line for line in said if line.startswith("head: step")]
    assert steps[0].startswith("head: step 12 of 40")


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        (dict(size=(60, 64)), {}, r"size: 60 px is not divisible|\(60, 64\) px is not"),
        (dict(train="nope"), {}, "has no split 'nope': choose training, validation"),
        (dict(dir="/nowhere"), {}, "image folder '/nowhere' doesn't exist"),
        (dict(set="voc"), {}, "has no ImageSets/Segmentation"),
        (dict(squash=True), {}, "squash: windows are of images of any aspect"),
        ({}, dict(classes=2), "map has class 3, but the 2 classes are 1 to 2"),
        ({}, dict(stride=65), "segmentation.stride: 65 px leaves gaps"),
        ({}, dict(layers=(4,)), "segmentation.layers: 4 is no block of this ViT"),
        (
            {},
            dict(batch_size=9),
            "segmentation.batch_size: 9 doesn't divide over 8 dev",
        ),
    ],
)
def test_bad_input_is_told_before_any_step(trained, ade, tmp_path, task, changes, said):
    lines = []
    with pytest.raises(UserError, match=said):
        config = segmentation(ade, task)
        config.evals.segmentation.update(changes)
        judge(config, trained, tmp_path, lines.append)
    assert not any("head: step" in line for line in lines)


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        (
            {},
            dict(crop=(40, 50)),
            r"crop: \(40, 50\) px is not divisible .* \(40, 48\)",
        ),
        (
            {},
            dict(judged=(45, 471, 41, 601)),
            r"judged: \(45, 471, 41, 601\) lies outside",
        ),
        ({}, dict(border=(0, 50, 0, 64)), r"border: \(0, 50, 0, 64\) lies outside"),
        ({}, dict(max_depth=0.001), "max_depth: 0.001 m is not above min_depth"),
        (dict(squash=False), {}, "squash: whole images get the size"),
    ],
)
def test_bad_input_for_depths_is_told(trained, nyu, tmp_path, task, changes, said):
    with pytest.raises(UserError, match=said):
        judge(depth(nyu, task, **changes), trained, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_two_processes_find_what_one_does(trained, ade, nyu, tmp_path, kind):
    """Each feeds its part of a batch, and the head is one."""
    config = segmentation(ade) if kind == "segmentation" else depth(nyu, steps=20)
    (tmp_path / "suite.json").write_text(config.to_json())
    (tmp_path / "suite.py").write_text(test_evaluating.SUITE)
    results = test_evaluating.same_digits(
        tmp_path / "suite.py", trained, tmp_path, (2,)
    )
    assert {"miou", "rmse"} & set(short(results))
