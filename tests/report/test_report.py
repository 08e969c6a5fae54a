"""The page of a report, without a browser: what is in it, and what never gets out of it."""

import html.parser
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.report import made
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.report import __main__ as command
from vit_ssl_jax.report import page, reading

pytest.importorskip("plotly", reason="the page needs plotly.min.js")
EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> &lt; '\""


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text of its scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._open = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self._open = [dict(attributes).get("id"), ""]

    def handle_data(self, data):
        if self._open:
            self._open[1] += data

    def handle_endtag(self, tag):
        if tag == "script":
            self.scripts.append(tuple(self._open))
            self._open = None

    def json(self, name):
        """What a JSON block holds."""
        return json.loads(dict(self.scripts)[name])


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Three runs: two seeds and another rate; the page, and the folder."""
    top = tmp_path_factory.mktemp("runs")
    made.write(top / "a", seed=0)
    made.write(top / "b", seed=1, tail='{"step": 41, "train/lo')
    made.write(top / "deeper" / "c", lr=3e-3)
    made.picture(top / "a" / "pictures.png")
    data, pictures = reading.collect([top])
    return Page(page.make_page(data, pictures)), top


def test_the_page_asks_for_nothing_and_its_parts_are_told_apart(comparison):
    found = comparison[0]
    for tag, attributes in found.tags:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (
                tag,
                attributes,
            )
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"runs", "curves", "charts", "pictures", "picture-step", "data-card"} <= set(
        ids
    )
    metas = [a for tag, a in found.tags if tag == "meta"]
    (policy,) = [a["content"] for a in metas if a.get("http-equiv")]
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert any(a.get("name") == "viewport" for a in metas)
    labelled = {a["for"] for tag, a in found.tags if tag == "output"}
    assert labelled <= set(ids)
    assert len(found.scripts) == 5


def test_the_numbers_in_the_page_are_those_of_the_runs(comparison):
    data = comparison[0].json("data")
    assert [run["name"] for run in data["runs"]] == ["a", "b", "deeper/c"]
    assert [run["group"] for run in data["runs"]] == [0, 0, 1]
    for run, seed in zip(data["runs"], (0, 1, 0)):
        assert (run["step"], run["steps"]) == (40, 40)
        curve = run["curves"]["train/loss"]
        assert curve["step"] == list(range(1, 41))
        np.testing.assert_allclose(
            curve["y"], made.loss(np.arange(1, 41), seed), rtol=1e-5
        )
        images = run["axes"]["images"]
        assert images["y"] == [16.0 * step for step in images["step"]]
        assert run["versions"] == made.VERSIONS
        assert run["card"]["images"] == 6500
        assert run["config"]["optim.betas"] == [0.9, 0.95]
    notes = data["runs"][1]["notes"]
    assert notes == ["left out: 1 damaged or half-written lines of metrics.jsonl"]
    titles = [part["title"] for part in data["sections"]]
    assert titles == [
        *("Training", "Evaluation", "Health", "Masks", "Schedules"),
        "Throughput and data",
    ]
    seeds, other = data["evaluations"]
    assert seeds["settings"] == "optim.lr=0.001" and seeds["runs"] == 2
    assert seeds["values"] == [50.4, 60.4] and seeds["result"] == "55.40 ± 7.07"
    assert other["result"] == "50.40"
    shown = comparison[0].json("picture-data")["runs"]
    assert list(shown) == ["a"] and shown["a"]["pictures"][0]["step"] == 40


def test_nothing_of_a_run_becomes_part_of_the_page(tmp_path):
    """Names of folders, values of configs, metrics and cards, all of them hostile."""
    run = made.write(tmp_path / "<b>run", recipe=EVIL)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 41, EVIL: 1.0}) + "\n")
    (run / "data.json").write_text(json.dumps({EVIL: [EVIL, "\u2028"]}))
    (run / "versions.json").write_text(json.dumps({EVIL: EVIL}))
    data, pictures = reading.collect([run])
    text = page.make_page(data, pictures)
    plain = Page(page.make_page({"runs": [], "notes": []}, pictures))
    hostile = Page(text)
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.scripts] == [name for name, _ in plain.scripts]
    assert hostile.scripts[2:] == plain.scripts[2:]
    told = hostile.json("data")["runs"][0]
    assert told["recipe"] == EVIL and told["curves"][EVIL]["y"] == [1.0]
    assert told["card"] == {EVIL: [EVIL, "\u2028"]}
    assert "<title>&lt;b&gt;run: report</title>" in text


def test_a_plot_is_by_a_library_that_is_whole_in_the_page(comparison):
    (library,) = [text for _, text in comparison[0].scripts if len(text) > 10**6]
    ours = page.find_library().read_text()
    assert library == ours or library == page.as_script(ours)
    assert page.as_script("a</script>b<!--c") == "a<\\/script>b<\\!--c"


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    made.write(tmp_path / "a", steps=2)
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vit_ssl_jax\[report\]'"):
        command.report([tmp_path], str(tmp_path / "out.html"))
    assert not (tmp_path / "out.html").exists()


def test_the_command_writes_a_page_and_says_what_is_left_out(
    tmp_path, monkeypatch, capsys
):
    made.write(tmp_path / "a", tail="torn\n")
    made.write(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text('{"recipe": ')
    out = tmp_path / "out.html"
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path), f"--out={out}"])
    command.main()
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0].startswith("note: b is left out: ") and "is the run whole?" in said[0]
    )
    assert (
        said[1] == "note: a: left out: 1 damaged or half-written lines of metrics.jsonl"
    )
    assert said[2].startswith(f"1 runs in {out} (") and len(said) == 3
    assert Page(out.read_text()).json("data")["runs"][0]["name"] == "a"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{top}/empty"], "error: {top}/empty holds no run: there is no config.json"),
        (["{top}/nothing"], "error: {top}/nothing holds no run"),
        (["{top}/a", "--out=page.txt"], "error: --out=page.txt: end it with .html"),
        (["{top}/a", "--out=no/p.html"], "error: --out=no/p.html: there is no folder"),
        (["--live", "gs://bucket/runs"], "error: --live reads folders of this machine"),
        (["--live", "{top}/empty"], "error: {top}/empty holds no run"),
        (
            ["--live", "{top}/a", "--host=192.0.2.1"],
            "error: --host=192.0.2.1 --port=8322",
        ),
        (["--live", "{top}/a", "--port=99999"], "can't be had"),
    ],
)
def test_what_cannot_be_is_one_clear_line(tmp_path, monkeypatch, words, said):
    made.write(tmp_path / "a", steps=2)
    (tmp_path / "empty").mkdir()
    words = [word.format(top=tmp_path) for word in words]
    monkeypatch.setattr("sys.argv", ["report", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert said.format(top=tmp_path) in ended.value.code
    assert "\n" not in ended.value.code


def test_a_damaged_run_is_still_shown(tmp_path):
    """Every file but its config torn, and an evaluation that is none."""
    run = made.write(tmp_path / "a", steps=3)
    for name in ("versions.json", "data.json", "summary.json"):
        (run / name).write_text('{"torn')
    (run / "metrics.jsonl").write_bytes(b'\xff\xfe\n{"step": 1')
    data, _ = reading.collect([run])
    (told,) = data["runs"]
    assert told["curves"] == {} and told["step"] == 0
    assert told["notes"] == [
        "left out: 2 damaged or half-written lines of metrics.jsonl",
        *(
            f"left out: {name}.json, which can't be read"
            for name in ("versions", "data", "summary")
        ),
    ]
    (run / "evaluations").mkdir()
    (run / "evaluations" / "one.json").write_text('{"recipe": 1}')
    (told,) = reading.collect([run])[0]["runs"]
    assert "one.json is no evaluation" in told["notes"][1]
    (run / "config.json").unlink()
    with pytest.raises(UserError, match=r"one\.json is no evaluation"):
        reading.collect([run])


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"recipe": 5}', '{"seed": 0', ""])
def test_a_config_that_is_none_is_told(tmp_path, text):
    made.write(tmp_path / "a", steps=2)
    (tmp_path / "a" / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"a is left out: .*config\.json"):
        reading.collect([tmp_path / "a"])


def test_an_evaluation_without_its_run_is_in_the_table(tmp_path):
    """As `evaluate` leaves it beside a file of weights."""
    one = dict(evaluation="eval_small", recipe="weights", step=0, settings={})
    one |= dict(
        trained=dict(recipe="weights", seed=0), results={"cifar10/knn/top1": 0.5}
    )
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "one.json").write_text(json.dumps(one))
    data, _ = reading.collect([tmp_path])
    (row,) = data["evaluations"]
    assert data["runs"] == [] and row["result"] == "50.00"
    assert Page(page.make_page(data, {"runs": {}, "notes": []})).json("data") == data


def test_the_alarm_is_told_where_it_begins():
    steps = np.arange(1, 9)
    alarm = np.array([0, 0, 1, 1, 0, 1, 0, np.nan])
    assert reading.alarms({"ssl/alarm": (steps, alarm)}) == [3, 6]
    assert reading.alarms({}) == []


def test_how_long_a_run_is_comes_from_its_steps_or_its_epochs():
    epochs = np.array([10, 20]), np.array([0.5, 1.0])
    assert reading.total_steps({"steps": 7, "epochs": 3.0}, epochs) == 7
    assert reading.total_steps({"steps": 0, "epochs": 3.0}, epochs) == 60
    assert reading.total_steps({"epochs": 3.0}, None) is None


def test_a_long_run_is_a_small_page(tmp_path):
    """20,000 rows of 12 metrics; that of 100,000 x 60 is the same, slow."""
    assert len(long_page(tmp_path, 20_000, 12)) < 7_000_000


@pytest.mark.slow
def test_a_very_long_run_of_many_metrics_is_below_twenty_megabytes(tmp_path):
    assert len(long_page(tmp_path, 100_000, 60)) < command.MOST


def long_page(folder, rows, metrics):
    """The page of a run of so many rows, a spike in one of them."""
    run = made.write(folder / "long", steps=1)
    values = np.random.default_rng(0).normal(size=(257, metrics))
    tails = [
        ", ".join(f'"m/{j}": {float(v)!r}' for j, v in enumerate(r)) for r in values
    ]
    with open(run / "metrics.jsonl", "a") as file:
        for step in range(2, rows + 1):
            spike = ', "m/0": 1e6' if step == rows // 2 else ""
            file.write(f'{{"step": {step}, {tails[step % 257]}{spike}}}\n')
    data, pictures = reading.collect([run])
    curve = data["runs"][0]["curves"]["m/0"]
    assert max(curve["hi"]) == 1e6
    assert len(curve["y"]) <= 1500
    assert "curves, the longest of" in data["notes"][0]
    return page.make_page(data, pictures)


def test_the_command_starts_without_jax(tmp_path):
    made.write(tmp_path / "a", steps=2)
    code = (
        "import sys; sys.argv = ['report', *sys.argv[1:]];"
        "from vit_ssl_jax.report import __main__ as m; m.main();"
        "sys.exit(' '.join({'jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    words = [str(tmp_path / "a"), f"--out={tmp_path / 'a.html'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "" and (tmp_path / "a.html").exists()
