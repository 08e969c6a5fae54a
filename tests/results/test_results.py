"""Runs into one table: grouping, spread, the published figure beside ours."""

import csv
import io
import json

import pytest

from tests import runs
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.results import __main__, published


def write(folder, recipe, top1, *, seed=0, lr=1e-3, step=10, init_from=""):
    """A finished run's workdir, as far as the table reads it."""
    folder.mkdir(parents=True)
    config = dict(recipe=recipe, seed=seed, optim=dict(lr=lr), data=dict(dir="x"))
    config["init_from"] = str(init_from)
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        {"step": step - 5, "eval/classify/top1": 0.1, "train/loss": 2.0},
        {"step": step, "eval/classify/top1": top1, "eval/classify/loss": 1.5},
        {"step": step, "train/loss": 1.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"step": 11, "eval/cl')  # torn


@pytest.mark.parametrize(
    "recipe",
    ["relvit_finetune:cifar10", "relvit_cifar10_finetune"],  # the latter in older runs
)
def test_seeds_become_mean_and_deviation_beside_the_published_figure(tmp_path, recipe):
    for seed, top1 in enumerate((0.90, 0.91, 0.92)):
        write(tmp_path / f"s{seed}", recipe, top1, seed=seed)
    (row,) = __main__.results([tmp_path])
    assert row["metric"] == "classify/top1"
    assert row["runs"] == 3 and row["steps"] == 10
    assert row["mean"] == pytest.approx(91.0)
    assert row["std"] == pytest.approx(1.0)
    assert (row["published"], row["published_std"]) == (90.23, 0.09)
    line = __main__.markdown([row]).splitlines()[-1]
    assert "| 91.00 ± 1.00 | 90.23 ± 0.09 (Camporese et al., 2022" in line


def test_other_settings_are_another_row_that_says_so(tmp_path):
    write(tmp_path / "a", "quickstart:mae", 0.5)
    write(tmp_path / "b", "quickstart:mae", 0.7, lr=1e-2)
    rows = __main__.results([tmp_path / "a", tmp_path / "b"])
    assert {row["settings"]: row["values"] for row in rows} == {
        "optim.lr=0.001": [50.0],
        "optim.lr=0.01": [70.0],
    }
    assert rows[0]["std"] is None and rows[0]["published"] is None


def test_fine_tuning_counts_with_what_it_began_with(tmp_path):
    """Seeds of the upstream run are repetitions; another upstream recipe isn't."""
    write(tmp_path / "up0", "relvit_cpu:upstream", 0.1)
    write(tmp_path / "up1", "relvit_cpu:upstream", 0.1, seed=1)
    write(tmp_path / "mae", "mae_vitb", 0.1)
    for i, (start, top1) in enumerate(
        [("up0", 0.5), ("up1", 0.6), ("mae", 0.9), ("gone", 0.8), ("", 0.3)]
    ):
        best = ":best" * (start == "up1")  # a run, or its best
        start = start and f"{tmp_path / start}{best}"
        write(tmp_path / f"ft{i}", "finetune", top1, seed=i, init_from=start)
    rows = __main__.results(sorted(tmp_path.glob("ft*")))
    assert sorted(row["values"] for row in rows) == [
        [30.0],
        [50.0, 60.0],
        [80.0],
        [90.0],
    ]
    told = {row["settings"] for row in rows}
    assert len(told) == 4 and any("init_from=another run" in text for text in told)


def write_evaluation(folder, step, best, pool="cls"):
    """What the evaluate command writes, as far as the table reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    one = dict(
        evaluation="probe_vitb:mae",
        recipe="mae_vitb",
        step=step,
        results={
            "imagenet/probe/best/top1": best,
            "imagenet/probe/last1_cls/top1": 0.1,
        },
        settings=dict(evals=dict(pool=pool)),
        trained=dict(recipe="mae_vitb", seed=0),
    )
    (folder / f"probe-{step}-{pool}.json").write_text(json.dumps(one))


def test_other_settings_of_an_evaluation_are_another_row(tmp_path):
    """Read without the run itself, as from a folder given to the command."""
    write_evaluation(tmp_path / "evaluations", 5, 0.6)
    write_evaluation(tmp_path / "evaluations", 5, 0.3, pool="mean")
    rows = __main__.results([tmp_path])
    assert {row["settings"]: row["values"] for row in rows} == {
        "probe_vitb:mae.evals.pool=cls": [60.0],
        "probe_vitb:mae.evals.pool=mean": [30.0],
    }


def test_of_a_checkpoints_evaluations_the_latest_counts(tmp_path):
    write(tmp_path / "a", "mae_vitb", 0.5)
    for step, best in ((5, 0.60), (10, 0.66), (7, 0.63)):
        write_evaluation(tmp_path / "a" / "evaluations", step, best)
    rows = __main__.results([tmp_path])
    probe = [row for row in rows if row["evaluation"]]
    (row,) = probe  # single heads of the grid are left out
    assert row["mean"] == pytest.approx(66.0) and row["steps"] == 10
    assert row["published"] == 68.0
    everything = __main__.results([tmp_path], metrics="probe|loss")
    assert len(everything) == 3


def test_csv_and_json_carry_every_value(tmp_path, monkeypatch, capsys):
    for seed, top1 in enumerate((0.25, 0.5)):
        write(tmp_path / f"s{seed}", "quickstart:mae", top1, seed=seed)
    for form in ("csv", "json"):
        argv = ["results", str(tmp_path), f"--format={form}"]
        monkeypatch.setattr("sys.argv", argv)
        __main__.main()
        text = capsys.readouterr().out
        read = csv.DictReader(io.StringIO(text)) if form == "csv" else json.loads(text)
        (row,) = list(read)
        assert "\r" not in text and r"\r" not in text
        assert row["recipe"] == "quickstart:mae"
        assert float(row["mean"]) == 37.5
        assert row["values"] == ("25.0 50.0" if form == "csv" else [25.0, 50.0])


def test_a_folder_without_a_run_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no run"):
        __main__.results([tmp_path])
    monkeypatch.setattr("sys.argv", ["results", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: .* holds no run"):
        __main__.main()


def test_a_bad_pattern_and_an_older_config_are_told(tmp_path):
    write(tmp_path / "a", "mae_vitb", 0.5)
    with pytest.raises(UserError, match="is no regular expression"):
        __main__.results([tmp_path], metrics="(")
    (tmp_path / "a" / "config.json").write_text('{"seed": 0}')
    with pytest.raises(UserError, match="names no recipe"):
        __main__.results([tmp_path])


def test_a_torn_config_is_told(tmp_path):
    write(tmp_path / "a", "mae_vitb", 0.5)
    (tmp_path / "a" / "config.json").write_text('{"recipe": ')
    with pytest.raises(UserError, match="can't be read"):
        __main__.results([tmp_path])


def test_a_run_that_cannot_be_read_is_left_out_with_a_line(tmp_path, caplog):
    write(tmp_path / "a", "mae_vitb", 0.5)
    write(tmp_path / "b", "mae_vitb", 0.7)
    (tmp_path / "b" / "config.json").write_text("[" * 100_000)
    (row,) = __main__.results([tmp_path])[:1]
    assert row["values"] == [50.0]
    assert f"left out: {tmp_path}/b/config.json can't be read" in caplog.text


def test_damaged_metrics_are_left_out(tmp_path):
    write(tmp_path / "a", "mae_vitb", 0.5)
    with open(tmp_path / "a" / "metrics.jsonl", "ab") as file:
        file.write(
            b'3\n[1]\n{"eval/knn/x/top1": \n\xff\xfe\n{"eval/linear/x/top1": 0.7}\n'
        )
        file.write(b"[" * 100_000 + b"\n")
    (row,) = __main__.results([tmp_path])[:1]
    assert row["values"] == [50.0] or row["values"] == [70.0]


def test_published_rows_belong_to_recipes_that_exist():
    recipes = set()
    for path in sorted((runs.ROOT / "configs").glob("*.py")):
        for arguments in runs.arguments(path.name):
            recipes.add(runs.load(path.name, *arguments).recipe)
    for row in published.ROWS:
        assert row.recipe in recipes, row
        assert row.evaluation in recipes | {""}, row
        assert 0 < row.value < 100 and row.source
    keys = [(row.recipe, row.evaluation, row.metric) for row in published.ROWS]
    assert len(set(keys)) == len(keys)


def test_a_metric_is_found_by_its_end():
    found = published.find("mae_vitl", "imagenet/probe/best/top1", "probe_vitl:mae")
    assert found.value == 75.8
    assert published.find("mae_vitl", "imagenet/probe/best/top1") is None
    assert (
        published.find("mae_vitl", "probe/almost_best/top1", "probe_vitl:mae") is None
    )
