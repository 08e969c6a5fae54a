"""The loop in process: errors before any work, what a workdir holds, damage."""

import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.ops import posemb


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of 8 steps with evaluators and summary."""
    workdir = tmp_path_factory.mktemp("run")
    config = runs.small(
        steps=8,
        checkpoint_every=3,
        summary=True,
        evals__knn__every_epochs=4 / 64,
        evals__linear__every_epochs=0.0,
    )
    return config, workdir, train.train(config, workdir)


def test_a_workdir_holds_what_a_user_looks_for(trained):
    config, workdir, summary = trained
    assert json.loads((workdir / "summary.json").read_text()) == summary
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["vit"]["variant"] == config.vit.variant
    versions = json.loads((workdir / "versions.json").read_text())
    assert {"jax", "vit_ssl_jax", "devices", "cores", "system"} <= set(versions)
    assert list(workdir.glob("events.out.tfevents.*"))
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"6", "8"}


def test_metrics_carry_the_expected_names(trained):
    lines = runs.metrics(trained[1])
    merged = {k: v for line in lines for k, v in line.items()}
    for name in ("train/loss", "train/lr", "train/grad_norm", "epoch"):
        assert np.isfinite(merged[name])
    assert merged["perf/img_per_sec"] > 0
    assert 0 <= merged["perf/data_wait_frac"] <= 1
    hours = [m["perf/hours"] for m in lines if "perf/hours" in m]
    assert hours == sorted(hours) and 0 < hours[0] < 1
    evaluated = [
        m["step"] for m in lines if "eval/knn/k20_T0.07_mean_standardized/top1" in m
    ]
    assert evaluated == [4, 8]
    assert [m["step"] for m in lines if "eval/linear/C0.1_mean/top1" in m] == [8]


def test_the_summary_compares_three_representations(trained):
    summary = trained[2]
    for probe in ("knn", "linear"):
        assert set(summary[probe]) == {"learned", "untrained", "raw_pixels"}
        assert all(0 <= v <= 1 for v in summary[probe].values())
    assert summary["seconds"] > 0


def test_a_run_starts_from_the_encoder_of_another(trained, tmp_path):
    """With a rate of 0 the encoder stays the one that it was given."""
    _, source, _ = trained
    changes = dict(init_from=str(source), optim__lr=0.0, steps=1, seed=1)
    train.train(runs.small(**changes), tmp_path / "run")
    ours, theirs = runs.weights(tmp_path / "run"), runs.weights(source)
    names = [name for name in ours if name.startswith("params/encoder/")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name])
    head = "params/decoder/head/kernel"
    assert np.any(ours[head] != theirs[head])


def test_fixed_positions_are_learned_on_from_where_they_were(trained, tmp_path, capsys):
    changes = dict(init_from=str(trained[1]), vit__posemb="learned", vit__gelu="tanh")
    train.train(runs.small(steps=1, optim__lr=0.0, **changes), tmp_path)
    said = capsys.readouterr().out
    assert "its fixed position table is learned from here on" in said
    assert "trained with vit.gelu='exact', here it is 'tanh'" in said
    table = runs.weights(tmp_path)["params/encoder/posemb"][0]
    np.testing.assert_array_equal(table[1:], posemb.sincos((4, 4), 32))
    np.testing.assert_array_equal(table[0], np.zeros(32))


def test_an_encoder_goes_on_at_another_resolution(trained, tmp_path, capsys):
    """Of a named checkpoint; its fixed table resampled, 4 x 4 to 6 x 4, then learned."""
    changes = dict(data__size=(48, 32), vit__posemb="learned", optim__lr=0.0)
    source = trained[1] / "checkpoints" / "6"
    train.train(runs.small(steps=1, init_from=str(source), **changes), tmp_path)
    said = capsys.readouterr().out
    assert "resampled for a grid of 6x4 patches, not 4x4" in said
    assert f"encoder: from {source}" in said
    table = runs.weights(tmp_path)["params/encoder/posemb"][0]
    fixed = posemb.resample(posemb.sincos((4, 4), 32), (4, 4), (6, 4))
    np.testing.assert_array_equal(table[1:], fixed)


def test_an_encoder_without_its_config_is_explained(trained, tmp_path):
    shutil.copytree(trained[1], tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    changes = dict(init_from=str(tmp_path / "bare"), steps=1)
    with pytest.raises(UserError, match="config.init_from: .*config.json can't be"):
        train.train(runs.small(**changes), tmp_path / "run")


def test_a_torn_encoder_is_explained(trained, tmp_path):
    shutil.copytree(trained[1], tmp_path / "torn")
    for path in (tmp_path / "torn" / "checkpoints" / "8" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    changes = dict(init_from=str(tmp_path / "torn"), steps=1)
    with pytest.raises(UserError, match="config.init_from: .*/8 can't be read"):
        train.train(runs.small(**changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(vit__variant="3x32x2/8"), "config.init_from: .* holds another model"),
        (dict(init_from="nowhere"), "config.init_from: there is no checkpoint under"),
        (dict(vit__variant="2x32x2/8,mlp=swiglu"), "is of another kind; set"),
    ],
)
def test_an_encoder_that_does_not_fit_is_explained(trained, tmp_path, changes, said):
    changes = dict(init_from=str(trained[1])) | changes
    with pytest.raises(UserError, match=said):
        train.train(runs.small(steps=1, **changes), tmp_path)


def test_a_finished_run_repeats_its_summary_without_a_step(trained):
    config, workdir, summary = trained
    before = runs.metrics(workdir)
    again = train.train(config, workdir)
    assert again["knn"] == summary["knn"]
    assert runs.metrics(workdir) == before


def test_a_finished_run_keeps_what_it_was_trained_with(trained, capsys):
    config, workdir, _ = trained
    before = (workdir / "config.json").read_text()
    other = config.copy_and_resolve_references()
    other.seed = 5
    train.train(other, workdir)
    assert "config.seed: 0 -> 5 (not written" in capsys.readouterr().out
    assert (workdir / "config.json").read_text() == before


def test_a_damaged_checkpoint_falls_back_to_the_last_whole_one(trained, tmp_path):
    config, workdir, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    whole = runs.weights(workdir)
    for file in (copy / "checkpoints" / "8" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:10])
    train.train(config, copy)  # from step 6, to the same end
    assert (copy / "damaged-8").is_dir()
    got = runs.weights(copy)
    for name, value in whole.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert [m["step"] for m in runs.metrics(copy) if "train/loss" in m] == [
        *range(1, 9)
    ]


def test_only_damaged_checkpoints_is_an_error_that_keeps_them(trained, tmp_path):
    config, workdir, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    for file in (copy / "checkpoints").rglob("d/*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the checkpoints .* \(steps 8, 6\)"):
        train.train(config, copy)
    assert {p.name for p in (copy / "checkpoints").iterdir()} == {"6", "8"}


def test_another_models_checkpoint_is_refused_and_left_alone(trained):
    _, workdir, _ = trained
    before = (workdir / "config.json").read_text()
    with pytest.raises(UserError, match=r"(?s)holds another model.*~ .*\(2, 32"):
        train.train(runs.small(steps=8, vit__variant="2x64x2/8"), workdir)
    assert (workdir / "config.json").read_text() == before


def test_fewer_steps_than_done_is_refused(trained):
    with pytest.raises(UserError, match="at step 8, beyond the 5 steps"):
        train.train(runs.small(steps=5), trained[1])


def test_a_loss_that_is_no_number_stops_the_run_unsaved(tmp_path):
    config = runs.small(steps=50, optim__lr=1e30, log_every=5)
    with pytest.raises(UserError, match=r"the loss is nan, at step 2;.*optim.lr"):
        train.train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            dict(method__name="simclr"),
            "no method 'simclr'; methods/ has colorization, context",
        ),
        (dict(batch_size=20), r"20 doesn't divide over 8 devices.* try 16 or 24"),
        (dict(batch_size=24, accum=2), r"8 devices .* x 2 micro-batches"),
        (dict(data__size=(30, 32)), "30x32 px is not divisible by the patch of 8"),
        (dict(mesh__fsdp=3), "doesn't fill 8 cpu device"),
        (dict(vit__variant="B16"), "'B16' is not a ViT; say NAME/PATCH"),
        (dict(vit__remat="some"), "config.vit.remat: 'some' is not one of none, dots"),
        (dict(method__mask_ratio=0.99), "keeps 0 of 16 patches"),
        (dict(data__name="folder", data__dir="/nowhere"), "/nowhere"),
        (dict(data__split="nope"), "nope"),
        (dict(steps=0, epochs=0.001), "config.epochs: 0.001 epochs .* are no step"),
        (dict(batch_size=0), "config.batch_size: 0 is not at least 1"),
        (dict(steps=-5), "config.steps: -5 is not at least 0"),
        (dict(keep=0), "config.keep: 0 is not at least 1"),
        (dict(log_every=0), "config.log_every: 0 is not at least 1"),
        (dict(seed=-1), "config.seed: -1 is not from 0 to"),
        (dict(optim__lr=float("nan")), "config.optim.lr: nan is not a finite number"),
        (dict(data__size=(32,)), r"config.data.size: \(32,\) is not '\(height, width"),
        (dict(data__interpolation="foo"), "'foo' is not 'bicubic' or 'bilinear'"),
        (dict(vit__droppath=2.0), "config.vit.droppath: 2.0 is not at least 0 and"),
        (dict(evals__knn__pool="max"), "config.evals.knn.pool: 'max' is not 'cls' or"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train.train(runs.small(**changes), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_unlabelled_data_trains_with_the_evaluators_off(tmp_path, capsys):
    config = runs.small(steps=2, data__labels=False, evals__knn__every_epochs=0.0)
    assert train.train(config, tmp_path) is None
    assert "evaluator knn is off: the data has no labels" in capsys.readouterr().out
    assert runs.metrics(tmp_path)[-1]["step"] == 2


def test_an_evaluator_that_cannot_work_is_off_and_says_how_to_say_so(tmp_path, capsys):
    knn = dict(evals__knn__k=(2000,), evals__knn__every_epochs=0.0)
    assert train.train(runs.small(steps=2, **knn), tmp_path) is None
    said = (
        "evaluator knn is off: config.evals.knn.k: 2000 neighbours of 1024 bank images"
    )
    out = capsys.readouterr().out
    assert said in out and "(--config.evals.knn.every_epochs=-1: never)" in out


def test_broken_images_are_skipped_counted_and_reported_once(tmp_path, capsys, caplog):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.jpg")
    whole = (images / "3.jpg").read_bytes()
    (images / "3.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "7.jpg").write_text("no picture")
    config = runs.small(steps=4, data__name="folder", data__dir=str(images))
    train.train(config, tmp_path / "run")
    assert runs.metrics(tmp_path / "run")[-1]["data/broken_images"] == 2
    assert "2 broken images were replaced" in capsys.readouterr().out
    assert len([r for r in caplog.records if "broken" in r.message.lower()]) == 1


def test_garbage_beside_the_checkpoints_does_not_stop_a_resume(trained, tmp_path):
    config, workdir, summary = trained
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "config.json").write_text("{garbage")
    whole = (copy / "metrics.jsonl").read_bytes()
    (copy / "metrics.jsonl").write_bytes(b'{"a": 1}\n5\n\xff\xfe\n' + whole)
    assert train.train(config, copy)["knn"] == summary["knn"]
    assert (copy / "metrics.jsonl").read_bytes() == whole
    assert json.loads((copy / "config.json").read_text())["seed"] == 0


def test_a_summary_without_evaluators_is_left_out(tmp_path):
    config = runs.small(steps=2, summary=True)
    assert train.train(config, tmp_path) is None
    assert not (tmp_path / "summary.json").exists()


def test_a_signal_in_the_last_steps_is_not_kept_waiting_by_the_closing_table():
    said = []
    session = types.SimpleNamespace(
        source=types.SimpleNamespace(broken=set()),
        run=types.SimpleNamespace(steps=5),
        config=types.SimpleNamespace(summary=True),
        evals=types.SimpleNamespace(names=["knn"]),
        stop_requested=[15],
        log=types.SimpleNamespace(say=said.append),
    )
    assert train.finish(session, types.SimpleNamespace(step=5), None) is None
    assert said == ["stopped before the closing table; the same command makes it"]
