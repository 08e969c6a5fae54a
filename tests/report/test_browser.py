"""The page in a browser: drawn, silent, by mouse and keyboard, on a phone, in the dark."""

import pytest

from tests.report import browser, made
from tests.report.test_live import serving
from vit_ssl_jax.report import live, page, reading

pytest.importorskip("plotly", reason="the page needs plotly.min.js")
pytestmark = pytest.mark.skipif(
    not browser.find(),
    reason="there is no browser here (CHROMIUM, chromium in the PATH)",
)
DRAWN = "document.querySelectorAll('.plot .main-svg').length > 0"
LOSS = "document.querySelector('[data-metric=\"train/loss\"]')"
RANGE = f"{LOSS}.querySelector('.plot').layout.xaxis.range"
EVIL = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser."""
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder of three runs, two of them seeds, one with a hostile name."""
    top = tmp_path_factory.mktemp("runs")
    made.write(top / "a", steps=2000)
    made.write(top / "b", seed=1)
    made.write(top / EVIL.replace("/", "\u2215"), lr=3e-3, recipe=EVIL)
    for step in (10, 20, 40):
        made.picture(top / "a" / "pictures" / str(step) / "mae.png", shade=step)
    made.picture(top / "b" / "pictures" / "20" / "mae.png")
    return top


@pytest.fixture(scope="module")
def address(top, tmp_path_factory):
    """The page of these runs as a file."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page.make_page(*reading.collect([top])))
    return file.as_uri()


def check_silent(opened, address):
    """It complained of nothing, and asked for nothing but itself."""
    assert opened.complaints == []
    outside = [url[:80] for url in opened.requests if not url.startswith("data:")]
    assert outside == [address]


def set_value(opened, name, value, event="input"):
    """Has a control changed as a person would."""
    opened.run(
        f"(() => {{ const c = document.getElementById('{name}'); c.value = '{value}';"
        f"c.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()"
    )


def test_all_parts_are_drawn_and_no_request_leaves(chromium, address):
    chromium.open(address)
    chromium.wait_for(DRAWN)
    text = chromium.run("document.body.innerText")
    assert "3 runs" in text and "How the configs differ" in text
    assert "optim.lr" in text
    assert "train/loss" in text and "mask/valid" in text and "ssl/rankme" in text
    assert chromium.run("document.querySelectorAll('#run-table tbody tr').length") == 3
    rows = "[...document.querySelectorAll('#difference-table tbody th')]"
    keys = chromium.run(f"{rows}.map((x) => x.textContent)")
    assert keys == ["optim.lr", "recipe", "seed", "steps"]
    # What was scrolled to is drawn, what wasn't is not.
    chromium.run("document.getElementById('notes').scrollIntoView()")
    chromium.run(
        "document.querySelector('[data-metric=\"perf/hours\"]').scrollIntoView()"
    )
    chromium.wait_for(
        "document.querySelector('[data-metric=\"perf/hours\"] .main-svg') !== null"
    )
    assert chromium.run("document.title") != "broken"
    assert EVIL in text
    check_silent(chromium, address)


def test_the_numbers_drawn_are_those_of_the_run(chromium, address):
    chromium.open(address)
    chromium.wait_for(DRAWN)
    named = "(t) => t.meta === 'b'"
    drawn = chromium.run(f"{LOSS}.querySelector('.plot').data.find({named}).y")
    assert drawn == pytest.approx([made.loss(s, 1) for s in range(1, 41)], rel=1e-5)
    set_value(chromium, "axis", "images", "change")
    xs = chromium.run(f"{LOSS}.querySelector('.plot').data.find({named}).x")
    assert xs == pytest.approx([16.0 * step for step in range(1, 41)])
    set_value(chromium, "axis", "hours", "change")
    xs = chromium.run(f"{LOSS}.querySelector('.plot').data.find({named}).x")
    assert xs == pytest.approx([step / 3600 for step in range(1, 41)], rel=1e-5)
    set_value(chromium, "smooth", "0.9")
    said = chromium.run("document.getElementById('smooth-said').textContent")
    smooth = chromium.run(f"{LOSS}.querySelector('.plot').data.find({named}).y")
    assert said == "0.9" and smooth[0] == drawn[0] and smooth[5] > drawn[5]
    chromium.run("document.getElementById('log').click()")
    assert chromium.run(f"{LOSS}.querySelector('.plot').layout.yaxis.type") == "log"
    set_value(chromium, "filter", "rank|los")
    shown = (
        "[...document.querySelectorAll('figure[data-metric]')].filter((f) => !f.hidden)"
    )
    names = chromium.run(f"{shown}.map((f) => f.dataset.metric)")
    assert names == ["train/loss", "ssl/rankme"]
    set_value(chromium, "filter", "(")  # no regular expression yet: all
    assert chromium.run(f"{shown}.length") > 2
    chromium.run("document.getElementById('show-2').click()")
    names = chromium.run(f"{LOSS}.querySelector('.plot').data.map((t) => t.meta)")
    assert "b" not in names and "a" in names
    check_silent(chromium, address)


def test_a_chart_goes_by_keyboard_alone(chromium, address):
    chromium.open(address)
    chromium.wait_for(DRAWN)
    chromium.run("document.getElementById('filter').focus()")
    chromium.press("Tab", 9)
    assert chromium.run(f"document.activeElement === {LOSS}")
    first, last = chromium.run(RANGE)
    chromium.press("+", 187, "+")
    near = chromium.wait_for(f"({RANGE}[0] > {first}) && {RANGE}")
    assert near[1] - near[0] == pytest.approx(0.625 * (last - first))
    chromium.press("ArrowRight", 39)
    moved = chromium.wait_for(f"({RANGE}[0] > {near[0]}) && {RANGE}")
    assert moved[1] - moved[0] == pytest.approx(near[1] - near[0])
    chromium.press("0", 48, "0")
    chromium.wait_for(f"Math.abs({RANGE}[0] - {first}) < 1e-6 * {last}")
    chromium.press("Enter", 13, "\r")
    assert chromium.run(f"{LOSS}.classList.contains('large')")
    label = chromium.run(f"{LOSS}.getAttribute('aria-label')")
    assert label.startswith("train/loss. Last values: ") and "; b 1.095" in label
    # And the buttons of it, for a finger.
    chromium.run(f"{LOSS}.querySelector('button[title=\"zoom in\"]').click()")
    chromium.wait_for(f"{RANGE}[0] > {first}")
    check_silent(chromium, address)


def test_the_slider_shows_the_pictures_of_a_step(chromium, address):
    chromium.open(address)
    chromium.wait_for(DRAWN)
    said = "document.getElementById('picture-said').textContent"
    captions = (
        "[...document.querySelectorAll('#panels figcaption')].map((c) => c.textContent)"
    )
    assert chromium.run(said) == "40"
    assert chromium.run(captions) == ["a: mae, step 40", "b: mae, step 20"]
    before = chromium.run("document.querySelector('#panels img').src")
    chromium.run("document.getElementById('picture-step').focus()")
    for step in ("20", "10"):
        chromium.press("ArrowLeft", 37)
        chromium.wait_for(f"{said} === '{step}'")
    assert chromium.run(captions) == ["a: mae, step 10", "b: mae, step 20"]
    after = "document.querySelector('#panels img')"
    assert chromium.run(f"{after}.src") != before
    chromium.wait_for(f"{after}.complete && {after}.naturalWidth === 64")
    assert "step 10" in chromium.run(f"{after}.alt")
    check_silent(chromium, address)


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(chromium, address, dark):
    chromium.open(address, width=360, height=700, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") == 360
    chromium.run("document.getElementById('charts').scrollIntoView()")
    chromium.wait_for(DRAWN)
    wide = "[...document.querySelectorAll('.plot .main-svg')].map((s) => s.clientWidth)"
    assert 200 < max(chromium.run(wide)) <= 360
    back = "getComputedStyle(document.documentElement).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    assert is_dark(chromium.run(back)) is dark
    assert is_dark(chromium.run(ink)) is not dark
    check_silent(chromium, address)


def is_dark(colour):
    """Whether `rgb(r, g, b)` is nearer to black."""
    return sum(map(int, colour[4:-1].split(","))) < 3 * 128


def test_the_served_page_follows_a_run(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "AGAIN", -1.0)
    monkeypatch.setattr(live, "SPARED", 0)
    run = made.write(tmp_path / "runs" / "a", steps=10)
    with serving(run.parent) as ask:
        chromium.open(f"http://127.0.0.1:{ask.port}/")
        chromium.wait_for(DRAWN)
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 11, "train/loss": 0.125}\n')
        chromium.run("void follow()")  # as it does every ten seconds
        chromium.wait_for(
            f"{LOSS}.querySelector('.plot').data.some((t) => t.y.at(-1) === 0.125)"
        )
        assert chromium.complaints == []
        outside = [u for u in chromium.requests if not u.startswith("data:")]
        assert {url.split("/")[2] for url in outside} == {f"127.0.0.1:{ask.port}"}
