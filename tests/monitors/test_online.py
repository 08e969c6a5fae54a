"""Online probes: what they compute, what they cost, and that training can't tell."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from tests import runs
from vit_ssl_jax import build, partition, step, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.monitors import online

# 8 images every second step; a queue that is full after the fourth time.
ON = dict(
    online__share=0.05,
    online__queue=20,
    online__k=3,
    vit__variant="2x32x2/4",
    steps=8,
    checkpoint_every=4,
)


def reference(batches, classes, *, queue, rate, k, temperature):
    """The probe in numpy, an image after the other in lists: its metrics and head."""
    width = batches[0][0].shape[1]
    kernel, bias = np.zeros((width, classes)), np.zeros(classes)
    speed, rows = [np.zeros_like(kernel), np.zeros_like(bias)], []
    for features, labels in batches:
        unit = [f / np.linalg.norm(f) for f, *_ in rows]
        judged = []
        for f, label in zip(features, labels):
            cosines = np.array([u @ f / np.linalg.norm(f) for u in unit])
            votes = np.zeros(classes)
            for i in np.argsort(-cosines, kind="stable")[:k]:
                votes[rows[i][1]] += np.exp(cosines[i] / temperature)
            judged.append(votes.argmax() == label)
        seen = np.array([*(row[0] for row in rows), *features])[-queue:]
        x = (features - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-6)
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(x)), labels])
        wrong = (p - np.eye(classes)[labels]) / len(x)
        speed = [0.9 * speed[0] + x.T @ wrong, 0.9 * speed[1] + wrong.sum(0)]
        right = logits.argmax(1) == labels
        rows = (rows + list(zip(features, labels, right, loss, judged)))[-queue:]
        kernel, bias = kernel - rate * speed[0], bias - rate * speed[1]
    means = [np.mean([row[i] for row in rows]) for i in (2, 3, 4)]
    return dict(zip(("linear", "loss", "knn"), means)), kernel, bias


def test_images_without_a_label_are_neither_judged_nor_learned_from():
    rng = np.random.default_rng(0)
    x, labels = np.float32(rng.normal(size=(6, 4))), np.int32([0, 1, 2, 0, 1, 2])
    start = online.init_state(4, 3, 20)
    numbers = dict(rate=0.1, k=2, temperature=0.07)
    some = np.where(np.arange(6) < 4, labels, -1)
    state = online.learn(start, x, some, **numbers)
    assert int(state["seen"]) == 6
    # What is learned is what the labelled ones say, standardised by all.
    mean, deviation = x.mean(0), np.sqrt(x.var(0) + 1e-6)
    wrong = np.full((4, 3), 1 / 3) - np.eye(3)[labels[:4]]
    kernel = -0.1 * ((x[:4] - mean) / deviation).T @ wrong / 4
    np.testing.assert_allclose(state["head"]["kernel"], kernel, atol=1e-6)
    metrics = online.read(state)
    np.testing.assert_allclose(metrics["loss"], np.log(3), rtol=1e-6)  # mean over four
    np.testing.assert_allclose(metrics["linear"], 2 / 4)  # those of class 0
    # They have no vote: the nearest of the last two's copies are others.
    score = online.vote(x[4:], state["queue"], 6, 3, 1, 0.07)
    assert (np.asarray(score) >= 0).all()
    cosine = x[4:] @ x[:4].T / np.linalg.norm(x[:4], axis=1)[None]
    np.testing.assert_array_equal(score.argmax(-1), labels[cosine.argmax(1)])


def test_it_is_the_same_in_numpy():
    """Through a queue that is filled, and overwritten at a seam."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6))
    numbers = dict(rate=0.3, k=3, temperature=0.2)
    batches, state = [], online.init_state(6, 4, queue=14)
    learn = jax.jit(lambda *a: online.learn(*a, **numbers))
    for _ in range(6):
        labels = rng.integers(0, 4, 4)
        features = np.float32(2 + centres[labels] + 0.5 * rng.normal(size=(4, 6)))
        batches.append((features, labels))
        state = learn(state, features, labels)
    wanted, kernel, bias = reference(batches, 4, queue=14, **numbers)
    found = online.read(state)
    assert found.keys() == wanted.keys() and 0.2 < wanted["knn"] < 1
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(state["head"]["kernel"], kernel, atol=1e-5)
    np.testing.assert_allclose(state["head"]["bias"], bias, atol=1e-5)


def test_the_vote_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    bank, labels = rng.normal(size=(30, 5)), rng.integers(0, 4, 30)
    queries = rng.normal(size=(20, 5))
    judge = KNeighborsClassifier(
        7, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1)
    ).fit(bank, labels)
    queue = {
        "features": jnp.concatenate([bank, np.tile(queries[:1], (9, 1))]),
        "label": jnp.concatenate([labels, np.full(9, 3)]),
    }  # rows that aren't there yet would win
    scores = online.vote(jnp.array(queries), queue, 30, 4, 7, 0.1)
    np.testing.assert_array_equal(scores.argmax(1), judge.predict(queries))
    shares = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, judge.predict_proba(queries), atol=1e-5)


@pytest.mark.slow
def test_a_separable_problem_is_learned():
    state, rng = online.init_state(8, 8, queue=64), np.random.default_rng(0)
    for _ in range(60):
        labels = rng.integers(0, 8, 16)
        state = online.learn(
            state, jnp.eye(8)[labels], labels, rate=0.1, k=1, temperature=1.0
        )
    assert online.read(state) == {
        "linear": 1,
        "loss": pytest.approx(0, abs=0.1),
        "knn": 1,
    }


@given(
    budget=st.floats(1e-3, 1e9), one=st.integers(1, 10**6), most=st.integers(1, 1000)
)
def test_a_budget_is_never_exceeded(budget, one, most):
    count, every = online.afford(budget, one, most)
    assert 1 <= count <= most and every >= 1
    assert count * one / every <= budget * (1 + 1e-9)


@pytest.mark.parametrize(
    ("budget", "one", "wanted"),
    [
        (10, 3, (3, 1)),
        (100, 3, (5, 1)),
        (3, 3, (1, 1)),
        (2, 3, (1, 2)),
        (0.5, 3, (1, 6)),
    ],
)
def test_a_budget_is_used(budget, one, wanted):
    assert online.afford(budget, one, most=5) == wanted


def test_images_are_the_first_of_every_devices_share():
    mesh = partition.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    batch = step.put_batch({"x": np.arange(16.0)}, mesh)

    @jax.jit
    def take(batch):
        return step.take(batch, 8, mesh)["x"]

    with jax.set_mesh(mesh):
        found, text = take(batch), take.lower(batch).compile().as_text()
    np.testing.assert_array_equal(found, [0, 1, 4, 5, 8, 9, 12, 13])
    assert "all-" not in text and "collective" not in text


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Workdirs of a run with online probes and of the same without."""
    workdirs = []
    for changes in (ON, ON | {"online__share": 0.0}):
        workdirs.append(tmp_path_factory.mktemp("run"))
        train.train(runs.small("mae", **changes), workdirs[-1])
    return workdirs


@pytest.mark.slow
def test_training_cannot_tell(pair):
    """Weights, moments and teacher are the same to the bit."""
    with_probe, without = pair
    ours, theirs = runs.weights(with_probe), runs.weights(without)
    extra = {name for name in ours if name.startswith("probe/")}
    assert ours.keys() - extra == theirs.keys() and len(extra) == 10
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    mine, other = (
        [m["train/loss"] for m in runs.metrics(d) if "train/loss" in m]
        for d in (with_probe, without)
    )
    assert mine == other and len(mine) == 8


@pytest.mark.slow
def test_metrics_are_written_once_there_are_any(pair):
    with_probe, without = pair
    names = ("online/linear/top1", "online/linear/loss", "online/knn_k3_T0.07/top1")
    lines = runs.metrics(with_probe)
    for name in names:
        assert [m["step"] for m in lines if name in m] == [*range(2, 9)]
    assert all(0 <= m[n] <= 1 for m in lines[1:] for n in names if "top1" in n)
    # The head of zeros knows nothing at first: ten classes.
    assert lines[1]["online/linear/loss"] == pytest.approx(np.log(10))
    assert not any(n.startswith("online/") for m in runs.metrics(without) for n in m)


def resume(pair, tmp_path, which, **changes):
    """Goes on from step 4 of one of the runs: the workdir."""
    shutil.copytree(pair[which], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    train.train(runs.small("mae", **ON | changes), tmp_path / "run")
    return tmp_path / "run"


def test_a_resumed_run_ends_with_the_same_probe_and_metrics(pair, tmp_path):
    again = resume(pair, tmp_path, 0)
    ours, theirs = runs.weights(again), runs.weights(pair[0])
    assert ours.keys() == theirs.keys() and int(ours["probe/seen"]) == 32
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    mine, other = (
        [{k: v for k, v in m.items() if k.startswith("online/")} for m in lines]
        for lines in map(runs.metrics, (again, pair[0]))
    )
    assert mine == other


@pytest.mark.slow
def test_it_can_be_switched_on_later(pair, tmp_path, capsys):
    again = resume(pair, tmp_path, 1)
    assert "none in the checkpoint, they start here" in capsys.readouterr().out
    assert int(runs.weights(again)["probe/seen"]) == 16


def test_it_can_be_switched_off_later(pair, tmp_path, capsys):
    again = resume(pair, tmp_path, 0, online__share=0.0)
    assert "those in the checkpoint are dropped" in capsys.readouterr().out
    np.testing.assert_equal(runs.weights(again), runs.weights(pair[1]))


def make(**changes):
    """A run on one device without training, its state and its probe."""
    config = runs.small("ijepa", **ON | changes)
    config.data.num_classes = 10
    run = build.make_run(config, jax.devices()[:1])
    return run, online.Probe(config, run, lambda: build.step_flops(config))


def test_it_judges_the_encoder_of_downstream_tasks():
    """I-JEPA's teacher, not its student; and the whole image, standardised."""
    run, probe = make()
    batch = {
        "image": np.full((16, 32, 32, 3), 90, np.uint8),
        "label": np.zeros(16, int),
    }
    params, ema = (run.program.init(jax.random.key(s)) for s in (0, 1))
    numbers = dict(images=2, run=run, rate=0.1, k=3, temperature=0.1)

    @jax.jit
    def features(params, ema):
        state = online.see_images(probe.init(), params, ema, batch, **numbers)
        return state["queue"]["features"]

    with jax.set_mesh(run.mesh):
        found = features(params.params, ema.ema)
        same = features(ema.params, ema.ema)
        assert np.any(found != features(params.params, params.ema))
    np.testing.assert_array_equal(found, same)
    image = (90 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    tokens = run.encoder.apply(
        {"params": ema.ema["encoder"]},
        np.tile(np.float32(image), (1, 32, 32, 1)),
        False,
    )
    np.testing.assert_allclose(found[0], tokens[0].mean(0), atol=1e-4)
    np.testing.assert_array_equal(found[2:], 0)


def test_its_price_is_counted_without_recomputation_and_accumulation():
    """By hand: the forward of an image, its vote, the head and its gradient."""
    _, probe = make()
    assert (probe.images, probe.every) == (4, 1)
    tokens, width, hidden = 64, 32, 128
    layer = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    forward = 2 * (tokens * 48 * width + 2 * layer)
    price = 4 * (forward + 2 * width * 20 + 2 * (2 * width * 10))
    config = runs.small("ijepa", **ON)
    config.data.num_classes = 10
    whole = build.step_flops(config)
    assert 5 * price / 4 > 0.05 * whole >= price
    assert f"4 of 16 images every step, {100 * price / whole:.2f} % of" in probe.line
    config.vit.remat, config.accum = "full", 2
    assert build.step_flops(config) == whole


def test_it_is_off_without_labels(tmp_path, capsys):
    config = runs.small(**ON | dict(steps=1, data__labels=False))
    train.train(config, tmp_path)
    assert "online probes: off, the data has no labels" in capsys.readouterr().out


def test_a_queue_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"config.online.queue: 2 images .*k=3"):
        make(online__queue=2)
