"""The pages of docs/reference/: as the code is, and nothing in it without a meaning."""

import jax
import numpy as np
import pytest

from tests import runs
from tests.reference import __main__ as written
from tests.reference import commands, metrics, settings
from vit_ssl_jax import __main__ as cli
from vit_ssl_jax import build, evaluators, methods, recipes, step, train
from vit_ssl_jax.evaluators import depth, segmentation

EVALUATED = {  # an evaluator's settings in a run of two steps on the embedded patches
    "pretext": dict(split="test[:64]"),
    "knn": dict(k=(5,), temperature=0.07, standardize=True),
    "linear": dict(c=0.1, iterations=5),
    "fewshot": dict(shots=(2,), seeds=(0, 1), ridge=1024.0),
}
SPLITS = dict(every_epochs=0.0, bank="train[:5%]", queries="test[:64]", pool="mean")
UNIFORM = dict(images=32, batch_size=32, crop=(0.5, 1.0), ratio=(1.0, 1.0), flip=True)
UNIFORM |= dict(alpha=2.0, t=2.0, seed=0, split="test[:64]", pool="mean")


@pytest.mark.parametrize("name", written.PAGES)
def test_a_page_is_that_of_the_code(name):
    stored = (runs.ROOT / "docs" / "reference" / name).read_text()
    assert stored == written.PAGES[name](), "python -m tests.reference"


def test_every_key_has_a_meaning():
    keys = [key for *_, found in settings.sections() for key in found]
    assert not [key.name for key in keys if not key.meaning]
    assert len(keys) > 250


def test_every_key_of_every_recipe_is_on_the_page():
    shown = {key.name for *_, found in settings.sections() for key in found}
    keys = {
        settings.listed(key, config) for config in settings.configs() for key in config
    }
    keys = {key if "(" not in key else f"method.{key.split('.')[1]}" for key in keys}
    assert keys - shown == {"method.name"}  # which its section's text is about


def test_a_key_without_a_comment_is_noticed():
    """So that an empty list means that all keys have one."""
    bare = settings.comments.Source(__file__).entries("EVALUATED")
    assert bare == dict.fromkeys([*("pretext", "knn", "linear", "fewshot")], ""), (
        "keys whose lines end without a comment"
    )
    (keys,) = (
        k for title, _, k in settings.sections() if title == "`mesh`: the devices"
    )
    assert [key.name for key in keys] == ["mesh.data", "mesh.fsdp", "mesh.tensor"]


def test_ranges_are_those_that_are_checked():
    rows = {key.name: key for *_, found in settings.sections() for key in found}
    assert rows["optim.name"].fits == "`adamw`, `sgd`, `lars`"
    assert rows["vit.remat"].fits == "`none`, `dots`, `full`"
    assert rows["data.workers"].fits.startswith("at least -1")
    assert rows["keep_every"].default == 0
    assert rows["evals.knn.metric"].default == "top1"


@pytest.mark.parametrize("method", methods.names())
def test_metrics_of_every_objective_have_a_meaning(method):
    """By shapes alone: nothing is computed."""
    config = recipes.load(f"pretext_cpu.py:{method}") if method in SMALL else None
    config = config or recipes.load(f"imagenette.py:{method}")
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.nonfinite.policy = "skip"
    program = build.make_run(config, jax.devices()[:1]).program
    shapes = program.state, program.batch, step.key_shape()
    _, found = jax.eval_shape(program.plain_step, *shapes)
    found = {name for name in found if not name.startswith("skips/")}  # not written
    assert {"train/loss", "train/lr", "train/skipped"} <= found
    assert not [name for name in found if metrics.explain(name) is None]
    own = {name for name in metrics.of_method(method) if "{" not in name}
    assert own - {"train/top1"} <= found


SMALL = {name for (name,) in runs.arguments("pretext_cpu.py")}


def test_metrics_of_a_run_and_of_its_evaluators_have_a_meaning(tmp_path):
    config = runs.small(
        steps=2, data__name="embedded", online__share=1.0, health__every=1
    )
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.evals = {
            name: (SPLITS if "split" not in own else dict(every_epochs=0.0)) | own
            for name, own in (EVALUATED | {"uniformity": UNIFORM}).items()
        }
    train.train(config, tmp_path)
    found = {name for row in runs.metrics(tmp_path) for name in row} - {"step"}
    assert {name.split("/")[1] for name in found if name.startswith("eval/")} == {
        *EVALUATED,
        "uniformity",
    }
    assert {"perf/hours", "ssl/alarm", "online/linear/top1"} <= found
    assert not [name for name in found if metrics.explain(name) is None]


def test_metrics_of_maps_have_a_meaning():
    errors = segmentation.score(np.eye(3, dtype=int))
    assert {f"eval/segmentation/{{protocol}}/{k}" for k in errors} == set(
        metrics.of_evaluator("segmentation")
    )
    c = depth.Config.__new__(depth.Config)
    for key, value in dict(min_depth=1e-3, max_depth=10.0, judged=()).items():
        object.__setattr__(c, key, value)
    errors = depth.score(c, [(np.ones((4, 4)), np.full((4, 4), 2.0))])
    assert {f"eval/depth/{{protocol}}/{k}" for k in errors} == set(
        metrics.of_evaluator("depth")
    )


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("eval/classify_v2/ema/top5", "eval/classify/top5"),
        ("eval/knn/k20_T0.07_mean_standardized/top1", "eval/knn/k{count}_T"),
        ("eval/probe/best_on_queries/mean_per_class", "eval/probe/{how}/{metric}"),
        ("eval/pretext/mask/valid", "mask/valid"),
        ("eval/pretext/relations_top1", "train/{task}_top1"),
        ("eval/untrained/knn/k20_T0.07_mean/top1", "eval/untrained/{metric}"),
    ],
)
def test_a_metric_is_found_on_the_page(name, pattern):
    assert metrics.explain(name).startswith(pattern)


@pytest.mark.parametrize("name", ["train/los", "eval/knn/top1", "eval/pretext/acc"])
def test_a_metric_that_is_not_there_is_noticed(name):
    assert metrics.explain(name) is None


def test_every_command_and_evaluator_is_on_a_page():
    assert set(commands.helps()) == set(cli.COMMANDS)
    assert set(metrics.EVALUATORS) == set(evaluators.names())
    for name in evaluators.names():
        assert metrics.of_evaluator(name)
