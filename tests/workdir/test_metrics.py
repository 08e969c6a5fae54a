"""Metrics on resume: what lies after the checkpoint goes, a torn line too."""

import json

import pytest

from vit_ssl_jax import console
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import metrics


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "train/loss": 1.0}) for step in (10, 20, 30)]
    path.write_text("\n".join(lines) + '\n{"step": 40, "tra')
    log = metrics.Writer(tmp_path, start=20, steps=100)
    log.write(30, {"train/loss": 0.5})
    log.close()
    got = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(m["step"], m["train/loss"]) for m in got] == [(10, 1), (20, 1), (30, 0.5)]


def test_where_nothing_can_be_appended_all_lines_are_written_again(
    tmp_path, monkeypatch
):
    """Once in a while, at a checkpoint and at the end, those of before with them."""
    monkeypatch.setattr(metrics, "is_stored", lambda path: True)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)))
    log = metrics.Writer(tmp_path, start=2, steps=100)

    def steps():
        return [json.loads(line)["step"] for line in path.read_text().splitlines()]

    log.write(3, {"a": 1})
    assert steps() == [1, 2]
    log.flush()
    log.write(4, {"a": 1})
    assert steps() == [1, 2, 3]
    monkeypatch.setattr(metrics, "AGAIN", 0)
    log.write(5, {"a": 1})
    assert steps() == [1, 2, 3, 4, 5]
    monkeypatch.setattr(metrics, "AGAIN", 30)
    log.write(6, {"a": 1})
    log.close()
    assert steps() == [1, 2, 3, 4, 5, 6]


def test_metrics_are_read_back_by_prefix(tmp_path):
    assert metrics.read_metrics(tmp_path, "ssl/") == []
    log = metrics.Writer(tmp_path, start=0, steps=100)
    for step, values in enumerate([{"ssl/a": 1}, {"b": 2}, {"ssl/a": 3, "b": 4}]):
        log.write(step, values)
    log.close()
    assert metrics.read_metrics(tmp_path, "ssl/") == [{"ssl/a": 1}, {"ssl/a": 3}]


def test_durations_read_well():
    assert [console.duration(s) for s in (5, 65, 3725)] == ["5s", "1m05s", "1h02m"]


def test_a_console_line_has_speed_wait_and_time_left():
    metrics = {
        "train/loss": 0.5,
        "perf/step_seconds": 2.0,
        "perf/img_per_sec": 64.0,
        "perf/data_wait_frac": 0.25,
    }
    line = console.console_line(10, 40, metrics)
    assert line == "step 10/40  loss 0.5000  64 img/s  data wait 25 %  ETA 1m00s"


def test_accuracies_are_told_in_per_cent_and_losses_as_they_are():
    line = console.results_line({"eval/knn/top1": 0.5, "eval/pretext/loss": 1.25})
    assert line == "eval/knn/top1 50.0 %  eval/pretext/loss 1.25"


def test_a_workdir_that_is_gone_is_one_message(tmp_path):
    rows = metrics.Rows(tmp_path / "run" / "metrics.jsonl", 0)
    with pytest.raises(UserError, match="run was moved or deleted while a run wrote"):
        rows.append('{"step": 1}\n')
