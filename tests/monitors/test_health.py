"""Health: closed forms, the alarm on recorded runs, and on real ones."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import runs
from vit_ssl_jax import build, step, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import ijepa
from vit_ssl_jax.monitors import health
from vit_ssl_jax.ops import patches

HISTORIES = json.loads((pathlib.Path(__file__).parent / "histories.json").read_text())
OF_FEATURES = (health.rankme, health.feature_std, health.cosine_spread)


def ring(count, dims):
    """Unit vectors +-e_i, as often as each other: `[2 count dims, dims]`."""
    axes = np.concatenate([np.eye(dims), -np.eye(dims)])
    return np.float32(np.tile(axes, (count, 1)))


@pytest.mark.parametrize(
    ("features", "rank"),
    [
        (np.eye(7), 7),
        (np.eye(5, 9), 5),
        (ring(3, 4), 4),
        (np.ones((6, 3)), 1),
        (np.outer([1.0, -2.0, 3.0], [1.0, 2.0]), 1),
        (np.diag([4.0, 4.0, 0.0]), 2),
        # Shares 3/4 and 1/4: exp(3/4 ln(4/3) + 1/4 ln 4).
        (np.diag([3.0, 1.0]), 4 / 3**0.75),
    ],
)
def test_rankme_in_closed_form(features, rank):
    assert health.rankme(jnp.float32(features)) == pytest.approx(rank, rel=1e-4)


def test_features_that_are_alike():
    alike = jnp.ones((8, 3)) * jnp.array([[1.0, 2.0, 3.0]])
    assert health.feature_std(alike) == pytest.approx(0, abs=1e-6)
    assert health.cosine_spread(alike) == pytest.approx(0, abs=1e-3)
    assert health.target_std(alike.reshape(2, 4, 3)) == pytest.approx(0, abs=1e-6)


def test_features_that_point_everywhere():
    """+-e_i, n = 2D: a pair's cosine is -1 for D of the D (2D - 1) pairs, else 0."""
    features = ring(1, 5)
    assert health.feature_std(features) == pytest.approx(1)
    assert health.cosine_spread(features) == pytest.approx((1 / 9 - 1 / 81) ** 0.5)
    assert health.target_std(ring(2, 5).reshape(4, 5, 5)) == pytest.approx(1)


def test_features_on_a_line():
    """Two to each side: cosine 1 for a third of the pairs, -1 for the others."""
    features = jnp.outer(jnp.array([1.0, 2.0, -1.0, -5.0]), jnp.ones(3))
    assert health.cosine_spread(features) == pytest.approx((8 / 9) ** 0.5, rel=1e-5)
    assert health.feature_std(features) == pytest.approx(1, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_a_scale_changes_nothing_and_a_rotation_neither_rank_nor_spread(seed, scale):
    rng = np.random.default_rng(seed)
    x = np.float32(rng.normal(size=(12, 6)) + rng.normal(size=(1, 6)))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    for function in (*OF_FEATURES, health.target_std):
        assert function(scale * x) == pytest.approx(float(function(x)), rel=1e-3)
    for function in (health.rankme, health.cosine_spread):
        assert function(x @ turn) == pytest.approx(float(function(x)), rel=1e-3)


def test_against_numpy_in_double():
    x = np.random.default_rng(0).normal(size=(20, 8)) + 0.5
    shares = np.sqrt(np.linalg.eigvalsh(x.T @ x))
    shares /= shares.sum()
    assert health.rankme(jnp.float32(x)) == pytest.approx(
        np.exp(-(shares * np.log(shares)).sum()), rel=1e-4
    )
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(20, dtype=bool)]
    assert health.cosine_spread(jnp.float32(x)) == pytest.approx(pairs.std(), rel=1e-4)


HEALTHY = {"ssl/rankme": 10.0, "ssl/feature_std": 0.8, "ssl/target_std": 0.8}


@pytest.mark.parametrize("name", HEALTHY)
def test_the_alarm_has_patience(name):
    low = HEALTHY | {name: 0.1 * HEALTHY[name]}
    for count in range(health.PATIENCE):
        assert health.find_collapse([HEALTHY] + [low] * count) == ""
    collapsed = [HEALTHY] + [low] * health.PATIENCE
    assert f"{name[4:]} fell from" in health.find_collapse(collapsed)
    assert health.find_collapse([*collapsed, HEALTHY]) == ""
    assert health.find_collapse([HEALTHY, low, low, HEALTHY, low, low]) == ""


def alarms(history):
    """Steps at which a recorded history is in alarm."""
    return [
        history[i]["step"]
        for i in range(len(history))
        if health.find_collapse(history[: i + 1])
    ]


@pytest.mark.parametrize("name", HISTORIES)
def test_the_alarm_on_recorded_runs(name):
    """Named "collapse ..." or "healthy ...": see docs/results/health.md."""
    assert bool(alarms(HISTORIES[name])) == name.startswith("collapse")


def make(method, **changes):
    """A tiny run on one device, a state, a batch of it and a key."""
    config = runs.small(method, vit__variant="2x32x2/4", **changes)
    config.data.num_classes = 10
    run = build.make_run(config, jax.devices()[:1])
    state = run.program.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (16, 32, 32, 3), np.uint8)}
    batch |= {"label": np.zeros(16, np.int32), "id": np.arange(16, dtype=np.int32)}
    return run, state, step.put_batch(batch, run.mesh), jax.random.key(0)


@pytest.mark.parametrize("method", ["mae", "ijepa"])
def test_only_targets_of_a_network_are_measured(method):
    run, *args = make(method)
    measure = health.make_measure(run.method, run.normalize, run.mesh, images=4)
    names = {"ssl/rankme", "ssl/feature_std", "ssl/cosine_spread"}
    names |= {"ssl/target_std"} if method == "ijepa" else set()
    found = measure(*args)
    assert found.keys() == names
    assert 1 <= found["ssl/rankme"] <= 4  # of so many images


def test_the_encoder_of_downstream_tasks_is_measured():
    """I-JEPA's teacher: a student of zeros changes nothing."""
    run, state, batch, key = make("ijepa")
    measure = health.make_measure(run.method, run.normalize, run.mesh, images=4)
    found = measure(state, batch, key)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    assert measure(state.replace(params=zeros), batch, key) == found
    assert measure(state.replace(ema=zeros), batch, key) != found


def collapsing(history):
    """An alarm from the third reading on."""
    return "it collapses" if len(history) >= 3 else ""


ALARM = dict(steps=10, health__every=2, checkpoint_every=100, log_every=10)


def test_a_collapse_is_said_once_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(health, "find_collapse", collapsing)
    train.train(runs.small(**ALARM), tmp_path)
    assert capsys.readouterr().out.count("step 4: it collapses") == 1
    lines = [m for m in runs.metrics(tmp_path) if "ssl/alarm" in m]
    assert [m["step"] for m in lines] == [1, 2, 4, 6, 8, 10]
    assert [m["ssl/alarm"] for m in lines] == [0, 0, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_collapse_stops_a_run_where_asked_to_and_saves_it(tmp_path, monkeypatch):
    """The readings of the session before count, too."""
    monkeypatch.setattr(health, "find_collapse", collapsing)
    config = runs.small(**ALARM, health__policy="stop")
    for done in (4, 6):
        said = f"stopped at step {done} and saved, .* 'stop': it collapses; .*=warn"
        with pytest.raises(UserError, match=said):
            train.train(config, tmp_path)
        assert int(runs.weights(tmp_path)["step"]) == done


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            dict(health__policy="shout"),
            "config.health.policy: 'shout' is not 'warn' or",
        ),
        (dict(health__images=1), "config.health.images: 1 is not at least 2"),
        (dict(online__share=2.0), "config.online.share: 2.0 is not from 0 to 1"),
    ],
)
def test_bad_values_are_refused(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train.train(runs.small(**changes), tmp_path)


class Open(ijepa.IJEPA):
    """I-JEPA without stop-gradient: its targets are outputs of the model itself."""

    def __call__(self, views, train):
        """Predictions `[B T E M D]` and targets `[B T M D]`."""
        x = self.encoder(views["image"], train)
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        b, t, m = views["target"].shape
        features = patches.take(x, views["target"].reshape(b, t * m))
        return super().__call__(views, train), features.reshape(b, t, m, -1)


def without_stop_gradient(method):
    """The method with that model; teacher and student are one."""

    def loss_fn(outputs, targets):
        return ijepa.loss_fn(outputs[0], targets | {"features": outputs[1]})

    model = Open(encoder=method.model.encoder, predictor=method.model.predictor)
    return dataclasses.replace(
        method,
        model=model,
        loss_fn=loss_fn,
        update_ema=lambda ema, params, *_: {"encoder": params["encoder"]},
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_alarm_on_a_real_run(tmp_path, monkeypatch, capsys, stop_gradient):
    """The quickstart's I-JEPA, 100 steps."""
    changes = {"steps": 100, "mesh.data": 1, "summary": False}
    changes |= {"health.every": 25, "health.policy": "stop"}
    config = runs.load("quickstart.py", "ijepa")
    config.update_from_flattened_dict(changes)
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
    if not stop_gradient:
        make = build.methods.make
        monkeypatch.setattr(
            build.methods, "make", lambda *a: without_stop_gradient(make(*a))
        )
        with pytest.raises(UserError, match="the representation collapses: "):
            train.train(config, tmp_path)
    else:
        train.train(config, tmp_path)
        assert all(m.get("ssl/alarm", 0) == 0 for m in runs.metrics(tmp_path))


def test_larger_images_are_resized_to_the_encoders(tiny):
    encoder = tiny.vit()
    image = jnp.float32(tiny.batch(2)["image"])
    params = encoder.init(jax.random.key(0), image, False)["params"]
    larger = image.repeat(2, 1).repeat(2, 2)
    close = np.testing.assert_allclose
    shrunk = jax.image.resize(larger, image.shape, "bilinear")
    expected = health.mean_feature(encoder, params, shrunk)
    close(health.mean_feature(encoder, params, larger), expected, atol=1e-5)
