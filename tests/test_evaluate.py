"""The evaluate command, as a user types it: checkpoints in, one table out."""

import contextlib
import functools
import json
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from tests import runs
from vit_ssl_jax import evaluate, finished, judging, partition, pretrained, train
from vit_ssl_jax.errors import UserError

KNN = "knn/k20_T0.07_mean_standardized/top1"
GRID = dict(
    readouts=((1, "mean"), (2, "mean")),
    batch_norm=(True,),
    optimizer="lars",
    momentum=0.9,
    rates=(0.1, 1.0),
    rate_batch=0,
    decays=(0.0,),
    schedule="cosine",
    step_epochs=0.0,
    milestones=(),
    rate_end=0.0,
    norm_group=0,
    nesterov=False,
    decay_bias=False,
    warmup_epochs=0.0,
    epochs=1.0,
    epoch_steps=0,
    batch_size=64,
    accum=1,
    augment=True,
    crop=(0.5, 1.0),
    ratio=(3 / 4, 4 / 3),
    single_draw=True,
    flip=True,
    checkpoint_every=3,
    seed=0,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Workdirs of two short runs: MAE, and a classifier with averaged weights."""
    folder = tmp_path_factory.mktemp("trained")
    train.train(runs.small("mae", steps=4, checkpoint_every=2, keep=2), folder / "mae")
    config = runs.small("mae", steps=4, vit__droppath=0.1)
    config.recipe = "supervised"
    supervised = runs.load("pretext_cpu.py", "supervised").method
    with config.unlocked():
        config.method = supervised.copy_and_resolve_references()
        config.method.ema = 0.5
        judge = dict(every_epochs=0.0, split="test[:100]", metric="mean_per_class")
        judge |= dict(set="", dir="", label="", label_map=(), only_present=False)
        config.evals = ConfigDict(dict(classify=judge))
    train.train(config, folder / "supervised")
    return folder


def suite(**tasks):
    """`eval_quickstart.py` on 1,024 + 1,024 coloured images; tasks may differ."""
    config = runs.load("eval_quickstart.py").copy_and_resolve_references().unlock()
    task = config.tasks.embedded.to_dict() | dict(set="fake", test="test[:100]")
    config.tasks = {n: task | changes for n, changes in (tasks or {"fake": {}}).items()}
    config.eval_batch_size = 48
    return config


def test_two_checkpoints_of_a_run_are_judged_and_written(trained, capsys):
    paths = [str(trained / "mae"), str(trained / "mae" / "checkpoints" / "2")]
    found = evaluate.evaluate(suite(), paths)
    assert [folder[-1] for folder in found] == ["4", "2"]
    for folder, results in found.items():
        assert results[f"fake/{KNN}"] > 0.5  # ten colours
        assert "fake/fewshot/shots5_l1024_mean/std" in results
        (file,) = (trained / "mae" / "evaluations").glob(f"*-mae-{folder[-1]}-*.json")
        written = json.loads(file.read_text())
        assert written["finished"]
        assert written["results"] == results
        assert (written["recipe"], written["step"]) == (
            "quickstart:mae",
            int(folder[-1]),
        )
    said = capsys.readouterr().out
    assert "| metric | mae 4 | mae 2 |" in said
    newest = paths[0]
    (again,) = evaluate.evaluate(suite(), [newest]).values()
    assert [again] == [r for folder, r in found.items() if folder.endswith("/4")]


def test_one_device_and_eight_give_the_same_digits(trained, tmp_path):
    """By the command; 100 queries in batches of 48 leave a part empty."""
    tables = []
    for devices in (1, 8):
        flags = [
            "--config.tasks.embedded.set=fake",
            "--config.tasks.embedded.test=test[:100]",
            "--config.eval_batch_size=48",
            f"--workdir={tmp_path / str(devices)}",
        ]
        done = run_command(
            "eval_quickstart.py", trained / "mae", *flags, devices=devices
        )
        assert done.returncode == 0, done.stdout
        tables.append(done.stdout[done.stdout.index("| metric") :])
    assert tables[0] == tables[1]
    (file,) = (tmp_path / "8" / "evaluations").glob("eval_quickstart-mae-4-*.json")
    assert json.loads(file.read_text())["trained"]["recipe"] == "quickstart:mae"


def run_command(config, checkpoint, *flags, devices=1):
    """`python -m vit_ssl_jax.evaluate`, finished."""
    command = [sys.executable, "-m", "vit_ssl_jax.evaluate"]
    command += [f"--config=configs/{config}", f"--checkpoint={checkpoint}", *flags]
    env = runs.environment(devices)
    return subprocess.run(
        command,
        cwd=runs.ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_a_probe_goes_through_the_encoder_and_its_folder_continues(trained, tmp_path):
    config = suite(fake=dict(train="train[:512]", select="train[512:600]"))
    config.evals = ConfigDict(dict(probe=GRID))
    (results,) = evaluate.evaluate(config, [str(trained / "mae")], tmp_path).values()
    heads = [k for k in results if k.startswith("fake/probe/last")]
    assert len(heads) == 4 and all("_aug_seed0/" in name for name in heads)
    assert results["fake/probe/best/top1"] in [results[name] for name in heads]
    (saved,) = tmp_path.glob("evaluations/*/fake/probe/checkpoints/8")
    again = evaluate.evaluate(config, [str(trained / "mae")], tmp_path)
    assert list(again.values()) == [results]  # read, not trained: all 8 steps are done
    assert saved.exists()


def test_a_stopped_suite_goes_on_with_the_task_it_was_at(
    trained, tmp_path, monkeypatch
):
    config = suite(a={}, b={}, c={})
    config.evals = ConfigDict(dict(knn=config.evals.knn))
    whole = evaluate.evaluate(config, [str(trained / "mae")], tmp_path / "whole")
    run_task, begun = judging.run_task, []

    def stop_in_b(config, name, *rest, stop_requested, **more):
        begun.append(name)
        if begun == ["a", "b"]:
            stop_requested.append(15)  # as a signal does
        return run_task(config, name, *rest, stop_requested=stop_requested, **more)

    monkeypatch.setattr(judging, "run_task", stop_in_b)
    said, path = [], [str(trained / "mae")]
    assert evaluate.evaluate(config, path, tmp_path / "again", said.append) == {}
    assert "stopped; the same command continues" in said[-1]
    again = evaluate.evaluate(config, path, tmp_path / "again")
    assert begun == ["a", "b", "b", "c"]
    assert again == whole


def test_a_second_evaluation_of_the_same_is_refused_while_one_is_at_work(
    trained, tmp_path, monkeypatch
):
    config = suite(a={})
    config.evals = ConfigDict(dict(knn=config.evals.knn))
    run_task, path = judging.run_task, [str(trained / "mae")]

    def start_another(*args, **more):
        with pytest.raises(UserError, match="is in use by process"):
            evaluate.evaluate(config, path, tmp_path)
        return run_task(*args, **more)

    monkeypatch.setattr(judging, "run_task", start_another)
    assert evaluate.evaluate(config, path, tmp_path)
    (left,) = (tmp_path / "evaluations").iterdir()
    assert left.suffix == ".json"


def test_a_config_that_is_damaged_is_one_message(trained, tmp_path):
    copy = shutil.copytree(trained / "mae", tmp_path / "mae")
    file, mesh = copy / "config.json", partition.make_mesh(suite(a={}).mesh)
    whole = json.loads(file.read_text())
    spoilt = ["[" * 100_000, "[]", "3", '{"vit": 3}', ""]
    for key in ("vit.variant", "vit.gelu", "data.size", "data.mean", "method", "seed"):
        for value in (None, 3, "x", [], {"a": 1}):
            other = json.loads(json.dumps(whole))
            *where, last = key.split(".")
            functools.reduce(dict.get, where, other)[last] = value
            spoilt.append(json.dumps(other))
    for text in spoilt:
        file.write_text(text)
        with contextlib.suppress(UserError):  # a seed of 3 is fine
            finished.make_model(finished.read_trained(copy), mesh)
        with contextlib.suppress(UserError):
            pretrained.read_config(pretrained.open_saved(copy))
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="config.json can't be read"):
        finished.read_trained(copy)


def test_a_classifier_is_judged_with_and_without_averaging(trained):
    config = suite(fake=dict(train=""))
    config.evals = ConfigDict(dict(classify=dict(label_map=(), only_present=False)))
    (results,) = evaluate.evaluate(config, [str(trained / "supervised")]).values()
    found = {k.removeprefix("fake/"): v for k, v in results.items()}
    assert set(found) == {
        f"classify/{k}" for k in ("top1", "top5", "ema/top1", "ema/top5")
    }
    own = runs.metrics(trained / "supervised")[-1]  # what the run itself has measured
    assert {k: own[f"eval/{k}"] for k in found} == found
    assert "eval/classify/ema/mean_per_class" in own
    config.tasks.fake.size = (64, 64)  # the head's positions are of another grid
    with pytest.raises(
        UserError, match=r"was trained at \(32, 32\), not at \(64, 64\)"
    ):
        evaluate.evaluate(config, [str(trained / "supervised")])
    config.tasks.fake.update(dict(size=(), set="embedded"))
    with pytest.raises(UserError, match="the data has 13 classes, the head 10"):
        evaluate.evaluate(config, [str(trained / "supervised")])


def test_another_size_resamples_the_positions(trained):
    config = suite(fake=dict(size=(48, 32)))
    config.evals = ConfigDict(dict(knn=config.evals.knn))
    (results,) = evaluate.evaluate(config, [str(trained / "mae")]).values()
    assert results[f"fake/{KNN}"] > 0.5


def test_means_are_over_whole_groups(trained, capsys):
    tasks = dict(a=dict(group="x"), b=dict(group="x", metric="mean_per_class"))
    config = suite(**tasks, c=dict(set="no_such_set", group="y"))
    config.evals = ConfigDict(dict(knn=config.evals.knn))
    config.tasks.b.metric = "top1"
    (results,) = evaluate.evaluate(config, [str(trained / "mae")]).values()
    name = KNN
    assert results[f"x/{name}"] == (results[f"a/{name}"] + results[f"b/{name}"]) / 2
    assert f"mean/{name}" not in results  # c is missing
    assert "task c is off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(variant="3x64x2/8"), r"(?s)another model.*\n  - .*norm3|~ .*kernel"),
        (dict(checkpoint="nowhere"), "there is no checkpoint under"),
        (dict(test="test[:0]"), "choose a slice that lies within"),
        (dict(test="nope"), "choose train or test"),
        (dict(train=""), "bank: name a split"),
        (dict(metric="top5"), "metric: 'top5' is not 'top1' or 'mean_per_class'"),
        (dict(temperature=0.0), "knn.temperature: 0.0 is not a finite number above 0"),
        (dict(size=(30, 32)), "is not divisible by the patch"),
        (
            dict(train="train[:9]"),
            "config.evals.knn.k: 200 neighbours of 9 bank images",
        ),
        (dict(train="train[:250:]"), "isn't understood"),
        (dict(shots=300), "300 images of each class are needed"),
    ],
)
def test_bad_input_is_told(trained, changes, said):
    config = suite()
    path = str(trained / changes.pop("checkpoint", "mae"))
    config.variant = changes.pop("variant", "")
    if "temperature" in changes:
        config.evals.knn.temperature = changes.pop("temperature")
    if "shots" in changes:
        config.evals.fewshot.shots = (changes.pop("shots"),)
    config.tasks.fake.update(changes)
    with pytest.raises(UserError, match=said):
        evaluate.evaluate(config, [path])


def test_a_set_without_labels_is_told(trained, tmp_path):
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    config = suite(fake=dict(set="folder", dir=str(tmp_path), test="train"))
    with pytest.raises(UserError, match="has no labels"):
        evaluate.evaluate(config, [str(trained / "mae")])


def test_a_checkpoint_of_an_older_version_is_told(trained, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(trained / "mae", old)
    config = json.loads((old / "config.json").read_text())
    del config["vit"], config["recipe"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"has no recipe, vit: it is of an older"):
        evaluate.evaluate(suite(), [str(old)])
    with pytest.raises(UserError, match="--checkpoint: give a run's workdir"):
        evaluate.evaluate(suite(), [])


def test_what_only_training_needs_may_be_missing(trained, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(trained / "mae", old)
    config = json.loads((old / "config.json").read_text())
    for key in ("accum", "evals", "health", "mesh", "online", "optim"):
        del config[key]
    (old / "config.json").write_text(json.dumps(config))
    (results,) = evaluate.evaluate(suite(), [str(old)], tmp_path).values()
    assert results


def test_a_method_that_is_bound_to_its_size_is_judged_at_another(trained, tmp_path):
    """Jigsaw's puzzle has no 48 px; its encoder has."""
    config = runs.small("mae", steps=1)
    config.recipe = "jigsaw"
    numbers = runs.load("pretext_cpu.py", "jigsaw").method
    with config.unlocked():
        config.vit.variant = "2x32x2/4"
        config.method = numbers.copy_and_resolve_references()
    train.train(config, tmp_path)
    judge = suite(fake=dict(size=(44, 36)))
    judge.evals = ConfigDict(dict(knn=judge.evals.knn))
    (results,) = evaluate.evaluate(judge, [str(tmp_path)]).values()
    assert results[f"fake/{KNN}"] > 0.3


def test_the_command_says_what_is_missing():
    done = run_command("eval_quickstart.py", "/nowhere")
    assert done.returncode == 1
    assert "error: there is no checkpoint under /nowhere" in done.stdout
    assert "Traceback" not in done.stdout
