"""Curves: what is read from metrics.jsonl, and what is left when it is thinned."""

import json
import math

import numpy as np
import pytest

from tests.report import made
from vit_ssl_jax.report import curves


def test_every_number_of_a_run_is_read(tmp_path):
    made.write(tmp_path / "a", steps=40)
    got, newest, notes = curves.read(tmp_path / "a" / "metrics.jsonl")
    assert newest == 40 and notes == []
    steps, values = got["train/loss"]
    np.testing.assert_array_equal(steps, np.arange(1, 41))
    np.testing.assert_array_equal(values, made.loss(np.arange(1, 41)))
    np.testing.assert_array_equal(got["eval/knn/top1"][0], [10, 20, 30, 40])


def test_damaged_lines_and_values_are_left_out_and_told(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "a": 1.0}',
        '{"step": 2, "a": ',  # half-written
        "[1, 2]",
        '{"a": 3.0}',
        '{"step": true, "a": 3.0}',
        '{"step": 3.5, "a": 3.0}',
        '{"step": -1, "a": 3.0}',
        "",
        '{"step": 3, "a": "three", "b": null, "c": true}',
        '{"step": 4, "a": NaN, "b": Infinity}',
        f'{{"step": 5, "a": 5, "b": {10**400}}}',
    ]
    file.write_bytes("\n".join(lines).encode() + b'\n{"step": 6, "a\xff\xfe')
    got, newest, notes = curves.read(file)
    assert newest == 5
    assert got["a"][0].tolist() == [1, 4, 5]
    np.testing.assert_array_equal(got["a"][1], [1, math.nan, 5])
    assert notes == [
        "7 damaged or half-written lines of metrics.jsonl",
        "4 values of metrics.jsonl that are no numbers",
        "values of a, b that are infinite or not a number: gaps",
    ]
    assert curves.thin(*got["a"], 10) == {"step": [1, 4, 5], "y": [1.0, None, 5.0]}


def test_without_a_file_there_is_nothing(tmp_path):
    assert curves.read(tmp_path / "metrics.jsonl") == ({}, 0, [])


def test_steps_ascend_and_of_one_step_the_last_value_counts(tmp_path):
    rows = [(3, 3.0), (1, 1.0), (3, 30.0), (2, 2.0)]
    text = "".join(json.dumps({"step": s, "a": v}) + "\n" for s, v in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    (steps, values) = curves.read(tmp_path / "metrics.jsonl")[0]["a"]
    assert steps.tolist() == [1, 2, 3] and values.tolist() == [1.0, 2.0, 30.0]


@pytest.mark.parametrize("count", [350, 1000, 12345])
def test_a_thinned_curve_has_the_mean_and_the_extremes_of_every_part(count):
    rng = np.random.default_rng(count)
    steps = np.cumsum(rng.integers(1, 5, count))
    values = rng.normal(size=count)
    values[rng.integers(0, count, 3)] = [1000.0, -1000.0, np.nan]
    got = curves.thin(steps, values, 100)
    assert {len(part) for part in got.values()} == {100}
    before = 0
    for last, *told in zip(got["step"], got["y"], got["lo"], got["hi"]):
        part = values[(steps > before) & (steps <= last)]
        part = part[np.isfinite(part)]
        want = part.mean(), part.min(), part.max()
        np.testing.assert_allclose(told, want, rtol=1e-5, atol=1e-9)
        before = last
    assert got["step"][-1] == steps[-1]
    assert max(got["hi"]) == 1000 and min(got["lo"]) == -1000


def test_a_part_without_a_number_is_a_gap():
    values = np.r_[np.ones(50), np.full(50, np.inf), np.ones(50)]
    got = curves.thin(np.arange(150), values, 3)
    assert got["y"] == got["lo"] == got["hi"] == [1.0, None, 1.0]


def test_a_short_curve_is_whole():
    got = curves.thin(np.arange(5), np.array([0.1, 1 / 3, 2e-9, 1e9, -1.0]), 5)
    assert got == {"step": [0, 1, 2, 3, 4], "y": [0.1, 0.333333, 2e-9, 1e9, -1.0]}


def test_an_axis_keeps_true_points_and_its_end():
    steps = np.arange(1, 1001)
    got = curves.sample(steps, 16.0 * steps, 30)
    assert len(got["step"]) == 30 and "lo" not in got
    assert got["y"] == [16.0 * step for step in got["step"]]
    assert got["step"][-1] == 1000


def test_more_curves_have_fewer_points_each():
    assert curves.points(60) == curves.MOST
    assert curves.points(2000) == 100
    assert curves.points(10**6) == curves.LEAST
    assert all(n * curves.points(n) <= curves.ALL for n in (200, 3000, 9000))


def test_hours_are_those_of_the_run_or_an_estimate():
    told = np.array([1, 2]), np.array([0.5, 1.0])
    assert curves.hours({"perf/hours": told}) == (told, False)
    seconds = np.array([10, 20, 40]), np.array([360.0, 180.0, 90.0])
    (steps, hours), estimated = curves.hours({"perf/step_seconds": seconds})
    assert estimated and steps.tolist() == [10, 20, 40]
    np.testing.assert_allclose(hours, [1.0, 1.5, 2.0])
    assert curves.hours({}) == (None, False)
