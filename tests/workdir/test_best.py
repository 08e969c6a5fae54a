"""The best checkpoint: kept by a metric, found as RUN:best, the same after a resume."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import arguments, checks, train
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.step import TrainState
from vit_ssl_jax.workdir import best, restore

METRIC = "eval/knn/k20_T0.07_mean_standardized/top1"


def make_state(step):
    """A state whose weight is its step; the optimiser's part isn't kept."""
    weight = {"encoder": {"w": jnp.full(3, float(step))}}
    return TrainState(jnp.int32(step), weight, {"moment": jnp.zeros(3)}, {})


def keep(workdir, values, rule="max eval/knn/top1"):
    """Offers states of steps to a run's `Best` with their values; what is kept."""
    kept = best.Best(workdir, rule)
    for step, value in values.items():
        kept.offer(make_state(step), {kept.metric: value})
    kept.close()
    return kept


def weights_of(path):
    """The weight of a checkpoint of `make_state`, and its folder."""
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        make_state(0).params,
    )
    params, _, folder = restore.load_params(path, like)
    return float(params["encoder"]["w"][0]), folder


@pytest.mark.parametrize(
    ("rule", "values", "step"),
    [
        ("max eval/knn/top1", {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5}, 2),  # a tie: the first
        ("min eval/knn/loss", {1: 3.0, 2: 1.0, 3: 2.0}, 2),
        ("max eval/knn/top1", {1: 0.1, 2: float("nan"), 3: 0.2}, 3),
    ],
)
def test_the_best_is_kept_and_only_that(tmp_path, rule, values, step):
    kept = keep(tmp_path, values, rule)
    value, folder = weights_of(f"{tmp_path}:best")
    assert (value, kept.value, kept.step) == (step, values[step], step)
    assert [path.name for path in folder.parent.iterdir()] == [str(step)]
    assert str(folder) in kept.line()
    assert weights_of(folder)[0] == step  # named by its folder, too


def test_a_resumed_run_knows_its_best(tmp_path):
    keep(tmp_path, {1: 0.2, 2: 0.5})
    assert keep(tmp_path, {3: 0.4}).step == 2
    assert keep(tmp_path, {4: 0.6}).step == 4
    # Steps that another course took before are no ground to keep nothing.
    assert keep(tmp_path, {3: 0.9}).step == 3 and weights_of(f"{tmp_path}:best")[0] == 3
    # Of another metric it begins anew.
    assert keep(tmp_path, {5: 0.1}, "max eval/knn/top5").step == 5


def test_a_folder_that_is_gone_is_one_message(tmp_path):
    kept = best.Best(tmp_path, "max eval/knn/top1")
    (tmp_path / "best").rmdir()
    (tmp_path / "best").write_text("")
    with pytest.raises(UserError, match="can't be written to .*best"):
        kept.offer(make_state(1), {kept.metric: 0.5})
    kept.close()


def test_a_run_without_a_best_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match="without config.keep_best, or hasn't measured"):
        restore.find_folder(f"{tmp_path}:best")
    with pytest.raises(UserError, match="no checkpoint under .*nowhere:best"):
        arguments.check_checkpoint(tmp_path / "nowhere:best")
    arguments.check_checkpoint(f"{tmp_path}:best")  # the folder is there


@pytest.mark.parametrize(
    ("rule", "fine"),
    [
        ("", True),
        ("max eval/classify/top1", True),
        (f"min {METRIC}", True),
        ("eval/classify/top1", False),
        ("max classify/top1", False),
        ("best eval/classify/top1", False),
        ("max train/loss", False),
    ],
)
def test_a_rule_names_a_direction_and_a_metric(rule, fine):
    config = runs.small(keep_best=rule)
    if fine:
        checks.check_config(config)
        return
    with pytest.raises(UserError, match="config.keep_best: .*'max METRIC' or 'min"):
        checks.check_config(config)


def small(**changes):
    """A run of 6 steps that is judged and saved at each."""
    every = dict(checkpoint_every=1, keep=9, keep_best=f"max {METRIC}")
    pace = dict(steps=6, evals__knn__every_epochs=1 / 64, optim__lr=3e-2)
    return runs.small(**every | pace | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with its best."""
    workdir = tmp_path_factory.mktemp("best") / "run"
    train.train(small(), workdir)
    return workdir


def parameters(folder):
    """The parameters of a checkpoint by name."""
    state = runs.arrays(folder)
    return {name: x for name, x in state.items() if name.startswith("params/")}


@pytest.mark.slow
def test_a_run_keeps_the_weights_of_its_best_evaluation(trained, tmp_path, capsys):
    values = {
        row["step"]: row[METRIC] for row in runs.metrics(trained) if METRIC in row
    }
    assert len(values) == 6 and len(set(values.values())) > 1
    (folder,) = (trained / "best").iterdir()
    step = int(folder.name)
    assert step == min(s for s, v in values.items() if v == max(values.values()))
    ours, theirs = parameters(folder), parameters(trained / "checkpoints" / folder.name)
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, x in ours.items():
        np.testing.assert_array_equal(x, theirs[name])
    # A run that goes back and comes by again has the same.
    again = shutil.copytree(trained, tmp_path / "again")
    for later in range(step, 7):
        shutil.rmtree(again / "checkpoints" / str(later))
    train.train(small(), again)
    assert [path.name for path in (again / "best").iterdir()] == [folder.name]
    assert (
        f"best {METRIC}: {values[step]:.4f} at step {step}" in capsys.readouterr().out
    )


def test_another_run_starts_from_the_best(trained, tmp_path, capsys):
    changes = dict(init_from=f"{trained}:best", optim__lr=0.0, steps=1, seed=1)
    train.train(runs.small(**changes), tmp_path)
    (folder,) = (trained / "best").iterdir()
    assert f"encoder: from {folder}" in capsys.readouterr().out
    ours, theirs = runs.weights(tmp_path), parameters(folder)
    names = [name for name in theirs if name.startswith("params/encoder/")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("max eval/classify/top1", "no evaluator classify is on; on are knn"),
        (
            "max eval/knn/top_1",
            "'eval/knn/top_1' is never measured; .* gives eval/knn/k",
        ),
    ],
)
def test_a_metric_that_is_never_measured_ends_it_before_a_step(tmp_path, rule, said):
    with pytest.raises(UserError, match=said):
        train.train(small(keep_best=rule), tmp_path)
    assert not runs.metrics(tmp_path)
