"""What the page computes of curves, in node, against numpy."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from vit_ssl_jax.report import page

pytestmark = pytest.mark.skipif(
    not shutil.which("node"), reason="there is no node here"
)
SCRIPT = pathlib.Path(page.__file__).parent / "curves.js"


def compute(*calls):
    """The results of calls `(function, arguments...)` of curves.js."""
    program = (
        "const c = require(process.argv[1]);"
        "const calls = JSON.parse(require('fs').readFileSync(0));"
        "const out = calls.map(([f, ...a]) => c[f](...a));"
        "console.log(JSON.stringify(out.map((x) => x === undefined ? null : x)));"
    )
    done = subprocess.run(
        ["node", "-e", program, str(SCRIPT)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_smoothing_is_a_mean_with_weights_that_fall_off():
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=50), 0.9
    want = []
    for i in range(50):
        weights = weight ** np.arange(i, -1.0, -1.0)
        want.append(np.average(values[: i + 1], weights=weights))
    gaps = [1.0, None, 3.0]
    got, same, constant, holes = compute(
        ["smooth", values.tolist(), weight],
        ["smooth", values.tolist(), 0],
        ["smooth", [0.1] * 1000, 0.97],
        ["smooth", gaps, 0.5],
    )
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert same == values.tolist()
    assert constant == [0.1] * 1000
    np.testing.assert_allclose([holes[0], holes[2]], [1.0, 7 / 3])
    assert holes[1] is None


def test_an_axis_is_read_off_between_its_points_and_beyond():
    axis = {"step": [10, 20, 40], "y": [1.0, 3.0, 4.0]}
    steps = [0, 5, 10, 12, 20, 30, 40, 60]
    got, again, none = compute(
        ["convert", steps, axis],
        ["convert", steps[::-1], axis],
        ["convert", [1, 2], {"step": [1], "y": [None]}],
    )
    want = np.interp(steps[:-1], [0, *axis["step"]], [0, *axis["y"]])
    np.testing.assert_allclose(got, [*want, 5.0])
    assert again == got[::-1]
    assert none == [None, None]


def test_a_curve_along_an_axis_that_a_run_lacks_is_none():
    curve = {"step": [1, 2, 3], "y": [1.0, 0.0, 4.0]}
    run = {"curves": {"a": curve}, "axes": {"images": {"step": [3], "y": [48.0]}}}
    by_step, by_image, by_hour, other = compute(
        ["along", run, "a", "step", 0],
        ["along", run, "a", "images", 0.5],
        ["along", run, "a", "hours", 0],
        ["along", run, "b", "step", 0],
    )
    assert by_step["x"] == [1, 2, 3] and by_step["y"] == curve["y"]
    assert by_image["x"] == [16.0, 32.0, 48.0] and by_image["raw"] == curve["y"]
    np.testing.assert_allclose(by_image["y"], [1, 1 / 3, 17 / 7])
    assert by_hour is None and other is None


def test_the_middle_and_the_last_number():
    assert compute(
        ["median", [3, 1, None, 2]],
        ["median", [4, 1, 2, 3]],
        ["median", [None]],
        ["last", [1, 2, None]],
        ["last", []],
    ) == [2, 2.5, None, 2, None]


def test_numbers_read_well():
    assert compute(
        ["show", 1234567],
        ["show", 0.123456],
        ["show", 1.5e-7],
        ["show", None],
        ["show", [1, 2]],
        ["showSetting", 0.001],
        ["showSetting", ""],
        ["duration", 0.01],
        ["duration", 0.5],
        ["duration", 30.123],
    ) == [
        *("1,234,567", "0.1235", "1.500e-7", "", "[1,2]", "0.001", '""'),
        *("36 s", "30.0 min", "30.12 h"),
    ]


def test_configs_are_compared_key_by_key():
    (rows,) = compute(["compare", [{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 0}], True])
    assert [row["key"] for row in rows] == ["b", "c"]
    assert rows[0]["values"] == [2, 3] and rows[1]["values"] == [None, 0]
    (every,) = compute(["compare", [{"a": 1}, {"a": 1}], False])
    assert [(row["key"], row["differs"]) for row in every] == [("a", False)]


def test_of_pictures_the_newest_at_a_step_is_shown():
    panel = [{"step": 10}, {"step": 30}]
    got = compute(*(["pictureAt", panel, step] for step in (5, 10, 29, 30, 99)))
    assert [one["step"] for one in got] == [10, 10, 10, 30, 30]


def test_keys_zoom_about_the_middle_and_move():
    got = compute(*(["zoomed", [0, 10], key] for key in ("+", "-", "ArrowLeft")))
    np.testing.assert_allclose(got, [[1.875, 8.125], [-3, 13], [-2, 8]])
    (back,) = compute(["zoomed", got[0], "-"])
    np.testing.assert_allclose(back, [0, 10])
