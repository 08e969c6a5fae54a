"""Trackers: MLflow's store of files and W&B's file of an offline run, read back."""

import json
import pathlib
import socket
import struct
import time

import pytest
from ml_collections import ConfigDict

from tests import runs
from vit_ssl_jax import arguments, train
from vit_ssl_jax.checks import check_config
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import metrics, tracking

LONG = "eval/knn/k20_T0.07_mean_standardized/top1"


def config(track):
    """A config as far as a tracker reads it."""
    return ConfigDict(dict(track=track, seed=3, optim=dict(lr=1e-3, betas=(0.9, 0.95))))


def write(workdir, track, first, last, steps):
    """A session of a run: what it writes of the steps from `first` to `last`; its lines."""
    workdir.mkdir(exist_ok=True)
    said = []
    log = metrics.Writer(workdir, start=first - 1, steps=steps, config=config(track))
    log.say = said.append
    log._tracker._say = said.append
    for step in range(first, last + 1):
        log.write(step, {"train/loss": 1 / step})
        log.write(step, {LONG: step / 10})
    log.close()
    return said


def written(workdir):
    """Steps of metrics.jsonl."""
    return [row["step"] for row in runs.metrics(workdir) if LONG in row]


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    """A store of files for MLflow; its client."""
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.tracking.MlflowClient((tmp_path / "mlruns").as_uri())


def test_mlflow_has_every_step_once_under_one_id(tmp_path, mlflow_store):
    workdir, track = tmp_path / "run", "mlflow:my experiment"
    assert write(workdir, track, 1, 7, 10) == []
    known = json.loads((workdir / "tracker.json").read_text())[track]
    assert mlflow_store.get_run(known["id"]).info.status == "KILLED"
    # It goes on from a checkpoint at step 4, and takes steps 5 to 7 again.
    assert write(workdir, track, 5, 10, 10) == []
    found = mlflow_store.get_experiment_by_name("my experiment")
    (run,) = mlflow_store.search_runs([found.experiment_id])
    assert run.info.run_id == known["id"] and run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["optim.lr"] == "0.001" and run.data.params["seed"] == "3"
    for name, value in (("train/loss", lambda s: 1 / s), (LONG, lambda s: s / 10)):
        history = mlflow_store.get_metric_history(known["id"], name)
        got = [(one.step, one.value) for one in history]
        assert got == [(step, value(step)) for step in range(1, 11)]
    assert written(workdir) == list(range(1, 11))


def test_another_experiment_is_another_run(tmp_path, mlflow_store):
    workdir = tmp_path / "run"
    write(workdir, "mlflow:a", 1, 2, 4)
    write(workdir, "mlflow:b", 3, 4, 4)
    known = json.loads((workdir / "tracker.json").read_text())
    assert known["mlflow:a"]["id"] != known["mlflow:b"]["id"]
    history = mlflow_store.get_metric_history(known["mlflow:b"]["id"], LONG)
    assert [one.step for one in history] == [3, 4]


def records(content):
    """The records of a file of W&B, which is a log of LevelDB's form."""
    at, record = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.fixture
def wandb():
    """W&B, which reads the environment once: afresh."""
    found = pytest.importorskip("wandb", reason="pip install wandb")
    found.teardown()
    yield found
    found.teardown()


def test_wandb_has_every_step_once_under_one_id(tmp_path, monkeypatch, wandb):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    workdir, track = tmp_path / "run", "wandb:team/project"
    assert write(workdir, track, 1, 3, 6) == []
    time.sleep(1.1)  # offline, W&B tells sessions apart by the second
    assert write(workdir, track, 2, 6, 6) == []
    files = sorted(
        workdir.glob("wandb/offline-run-*/*.wandb"), key=lambda f: f.stat().st_mtime
    )
    seen, told, ended = [], set(), []
    for file in files:
        for content in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                told.add((record.run.run_id, record.run.project, record.run.entity))
            if kind == "exit":
                ended.append(record.exit.exit_code)
            if kind == "history":
                items = record.history.item
                row = {i.key or "/".join(i.nested_key): i.value_json for i in items}
                values = [float(row[name]) for name in ("_step", "train/loss", LONG)]
                seen.append(tuple(values))
    known = json.loads((workdir / "tracker.json").read_text())[track]
    assert told == {(known["id"], "project", "team")}
    assert seen == [(s, pytest.approx(1 / s), s / 10) for s in range(1, 7)]
    assert ended == [1, 0]


def test_a_tracker_that_fails_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{runs.free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = write(tmp_path / "run", "mlflow:x", 1, 5, 5)
    (line,) = said
    assert line.startswith("config.track: mlflow:x: ") and "\n" not in line
    assert line.endswith("; the run does without it")
    assert written(tmp_path / "run") == [1, 2, 3, 4, 5]


def test_without_a_key_wandb_is_one_line_and_never_asks(tmp_path, monkeypatch, wandb):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{runs.free_port()}")
    (line,) = write(tmp_path / "run", "wandb:x", 1, 5, 5)
    assert line.startswith("config.track: wandb:x: ")
    assert written(tmp_path / "run") == [1, 2, 3, 4, 5]


def test_a_server_that_never_answers_holds_up_nothing(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setattr(tracking, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        (line,) = write(tmp_path / "run", "mlflow:x", 1, 300, 300)
        assert time.monotonic() - begun < 10
    assert "not all was sent within 0.5 s" in line
    assert written(tmp_path / "run") == list(range(1, 301))


def test_more_rows_than_can_wait_end_the_tracker_alone(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setattr(tracking, "MOST", 20)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        (line,) = write(tmp_path / "run", "mlflow:x", 1, 300, 300)
    assert "20 rows wait to be sent" in line
    assert written(tmp_path / "run") == list(range(1, 301))


def test_a_damaged_note_of_the_tracker_begins_a_new_run(tmp_path):
    for text in ("", "[]", '{"mlflow:x": 3}', '{"mlflow:x": {"step": "y"}}'):
        (tmp_path / "tracker.json").write_text(text)
        known = tracking.Known(pathlib.Path(tmp_path), "mlflow:x")
        assert (known.id, known.sent) == (None, 0)
    known.name("abc")
    known.note(4)
    known.note(5)
    told = json.loads((tmp_path / "tracker.json").read_text())["mlflow:x"]
    assert told == {"id": "abc", "step": 4}  # of step 5 there may be more to come
    known.save()
    assert tracking.Known(tmp_path, "mlflow:x").sent == 5


@pytest.mark.parametrize(
    "track", ["wandb", "wandb:", "mlfow:x", "wandb:a:b", "wandb:a/"]
)
def test_a_tracker_that_there_is_none_of_is_told(track):
    with pytest.raises(
        UserError, match=r"config\.track: .*'wandb:PROJECT' or 'mlflow:"
    ):
        check_config(runs.small(track=track))
    for good in ("", "wandb:a", "wandb:team/a", "mlflow:my experiment"):
        check_config(runs.small(track=good))
    older = runs.small()
    with older.unlocked():
        del older.track
    check_config(older)


def test_a_package_that_is_missing_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(arguments.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vit_ssl_jax\[wandb\]'"):
        arguments.check_training(config("wandb:x"))
    arguments.check_training(config(""))


@pytest.mark.slow
def test_a_run_that_trains_is_tracked(tmp_path, mlflow_store):
    """Stopped by its length and gone on with, as a user would."""
    for steps in (2, 4):
        cut = runs.small(steps=4, track="mlflow:trained", checkpoint_every=2)
        cut.steps = steps
        train.train(cut, tmp_path / "run")
    known = json.loads((tmp_path / "run" / "tracker.json").read_text())
    history = mlflow_store.get_metric_history(
        known["mlflow:trained"]["id"], "train/loss"
    )
    assert [one.step for one in history] == [1, 2, 3, 4]
    losses = [
        r["train/loss"] for r in runs.metrics(tmp_path / "run") if "train/loss" in r
    ]
    assert [one.value for one in history] == losses
