"""Images on the devices: spans are the steps they hold, and a run of them is resumable."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import build, device_cache, feeds, loop, starting, train, train_data
from vit_ssl_jax.errors import UserError


def cached(**changes):
    """A run of 11 steps on images that are on the devices."""
    return runs.small(data__device_cache=True, steps=11, **changes)


@pytest.fixture(scope="module")
def run():
    """A run with spans, the plain one, and a feed's maker."""
    config = cached()
    _, source, _ = train_data.open_run(config)
    plain = build.make_run(config)
    source, loaded, lines = feeds.keep(config, source)
    spans, open_feed = feeds.choose(config, plain, source, loaded)
    assert lines == [
        "data: all images on every device, 0.0029 GiB (config.data.device_cache)"
    ]
    return types.SimpleNamespace(
        plain=plain,
        spans=spans,
        feed=open_feed,
        key=starting.make_key(config.seed, plain.program),
        loaded=loaded,
    )


def take(run, state, feed, count):
    return run.spans.program.step(state, feed.put(feed.take(count)), run.key)


def test_a_span_is_its_steps(run):
    """Of a span's last batch the plain step makes what the span made of it."""
    feed, state = run.feed(0), run.spans.program.init(jax.random.key(0))
    same = run.plain.program.init(jax.random.key(0))
    for _ in range(3):
        state, metrics, batch = take(run, state, feed, 1)
        same, wanted = run.plain.program.step(same, batch, run.key)
        for name in ("train/loss", "train/grad_norm"):
            np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-5)
    other = run.spans.program.init(jax.random.key(0))
    other, metrics_3, batch_3 = take(run, other, run.feed(0), 3)
    assert int(other.step) == 3 and metrics_3["train/loss"] == metrics["train/loss"]
    for ours, theirs in ((other, state), (batch_3, batch)):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_batch_is_of_the_images_and_labels_of_its_ids(run):
    """Crops of noise around one colour a class keep the colour."""
    state = run.spans.program.init(jax.random.key(0))
    _, _, batch = take(run, state, run.feed(4), 5)
    image, label, ids = (np.asarray(batch[k]) for k in ("image", "label", "id"))
    np.testing.assert_array_equal(label, run.loaded.label[ids])
    colours = run.loaded.image[ids].mean(axis=(1, 2))
    assert image.dtype == np.uint8 and image.shape == (16, 32, 32, 3)
    assert np.abs(image.mean(axis=(1, 2)) - colours).max() < 12
    assert len(np.unique(ids)) == 16


@pytest.mark.slow
def test_a_run_stops_and_ends_with_the_same_weights(tmp_path, capsys):
    """One that goes on from step 4; all that is due in between is there."""
    changes = dict(
        log_every=3, checkpoint_every=4, health__every=5, health__images=16, keep=5
    )
    config = cached(evals__knn__every_epochs=6 / 64, **changes)
    train.train(config, tmp_path / "one")
    said = capsys.readouterr().out
    assert "data: all images on every device" in said
    rows = runs.metrics(tmp_path / "one")
    steps = {
        name: [row["step"] for row in rows if name in row]
        for name in (
            "train/loss",
            "ssl/rankme",
            "eval/knn/k20_T0.07_mean_standardized/top1",
        )
    }
    assert list(steps.values()) == [[3, 6, 9, 11], [1, 5, 10], [6, 11]]
    saved = {p.name for p in (tmp_path / "one" / "checkpoints").iterdir()}
    assert saved == {"4", "8", "11"}

    train.train(config, tmp_path / "two")
    for step in ("8", "11"):
        for file in (tmp_path / "two" / "checkpoints" / step).rglob("d/*"):
            file.write_bytes(b"")
    train.train(config, tmp_path / "two")  # from step 4
    ours, theirs = runs.weights(tmp_path / "two"), runs.weights(tmp_path / "one")
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)

    capsys.readouterr()
    with config.unlocked():
        config.data.device_cache = False
    train.train(config, tmp_path / "two")  # which is finished
    said = capsys.readouterr().out
    assert "config.data.device_cache is True, as this run began" in said


def spans_of(steps, stop_at=None, start=0, most=64, **due):
    """What `loop.spans` yields where things are due every so many steps."""
    heard = []

    def due_at(name):
        return lambda done, *_: bool(due.get(name)) and done % due[name] == 0

    class Asked(list):
        def __bool__(self):
            heard.append(len(heard) + start + 1)
            return heard[-1] == stop_at

    s = types.SimpleNamespace(
        run=types.SimpleNamespace(steps=steps),
        config=types.SimpleNamespace(log_every=100, checkpoint_every=1000),
        monitor=types.SimpleNamespace(due=due_at("monitor")),
        probe=types.SimpleNamespace(due=due_at("probe")),
        evals=types.SimpleNamespace(due=due_at("evals")),
        album=types.SimpleNamespace(due=due_at("album")),
        stop_requested=Asked(),
    )
    return list(loop.spans(s, start, lambda: most)), heard


def test_spans_end_where_something_is_due():
    assert spans_of(10)[0] == [(1, 1), (9, 10)]
    assert spans_of(10, most=1)[0] == [(1, n) for n in range(1, 11)]
    assert spans_of(130)[0] == [(1, 1), (64, 65), (35, 100), (30, 130)]
    assert spans_of(12, monitor=5, evals=4)[0] == [
        *((1, 1), (3, 4), (1, 5), (3, 8)),
        *((2, 10), (2, 12)),
    ]
    assert spans_of(9, start=4, probe=3)[0] == [(1, 5), (1, 6), (3, 9)]
    assert spans_of(9, album=4)[0] == [(1, 1), (3, 4), (4, 8), (1, 9)]
    assert spans_of(4, start=4)[0] == []


def test_slow_steps_make_short_spans_for_a_signal_to_be_heard():
    paces = [0.0, 0.001, 0.5, 3.0, 60.0]  # seconds a step; 0 is not known yet
    most = [loop.most_steps(64, pace) for pace in paces]
    assert most == [64, 64, 10, 1, 1]
    assert loop.most_steps(1, 0.001) == 1


def test_a_signal_is_asked_for_at_every_step_and_ends_the_span_before():
    assert spans_of(100, stop_at=40) == ([(1, 1), (38, 39)], list(range(1, 41)))
    assert spans_of(100, stop_at=2) == ([(1, 1)], [1, 2])
    assert spans_of(100, stop_at=1) == ([], [1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(data__randaugment="rand-m9-mstd0.5-inc1"), "randaugment=.* on the host"),
        (dict(data__name="folder", data__dir="photos"), "images of one size"),
    ],
)
def test_what_cannot_live_there_is_refused_before_any_work(
    tmp_path, monkeypatch, changes, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Image.new("RGB", (40 + i, 40)).save(f"photos/{i}.png")
    with pytest.raises(UserError, match=f"config.data.device_cache: .*{said}"):
        train.train(cached(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_method_that_needs_labels_says_which_image_has_none(run):
    """But for a broken one, whose place another takes."""
    label, stand_in = run.loaded.label.copy(), run.loaded.stand_in.copy()
    label[7] = -1
    missing = dataclasses.replace(run.loaded, label=label)
    method = dataclasses.replace(run.plain.method, needs_labels=True)
    wants = dataclasses.replace(run.plain, method=method)
    with pytest.raises(UserError, match="image 7 of config.data.split has no label"):
        device_cache.extend(wants, cached(), missing)
    stand_in[7] = 8
    device_cache.extend(
        wants, cached(), dataclasses.replace(missing, stand_in=stand_in)
    )
