"""mCE: AlexNet's own, a network's published errors, and what a part of the sets gives."""

import pytest
from ml_collections import ConfigDict

from tests import runs
from vit_ssl_jax.results import published, robustness, side_by_side

# Of torchvision's ResNet-50 top-1 in per cent, mean of the severities, and CE, from another
# project's log of its evaluation.
RESNET50 = {
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "defocus_blur": (38.75, 74.71),
    "elastic_transform": (45.25, 84.75),
    "fog": (45.83, 66.11),
    "frost": (38.14, 74.84),
    "gaussian_noise": (29.29, 79.77),
    "glass_blur": (26.79, 88.61),
    "impulse_noise": (23.81, 82.58),
}


def done(top1):
    """Results of all tasks: `top1(corruption, severity)`."""
    return {
        f"{c}_{s}": {"classify/top1": top1(c, s), "classify/top5": 1.0}
        for c in robustness.ALEXNET
        for s in range(1, 6)
    }


def test_alexnets_own_error_is_one():
    found = robustness.errors(done(lambda c, s: 1 - robustness.ALEXNET[c]))
    assert set(found) == {
        "imagenet_c/classify/mce",
        *(f"{c}/classify/ce" for c in robustness.ALEXNET),
    }
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_severities_are_summed_before_they_are_divided():
    """Errors 0, .1, ..., .4 of all: the mean of .2 / AlexNet's."""
    found = robustness.errors(done(lambda c, s: 1 - 0.1 * (s - 1)))
    want = sum(0.2 / a for a in robustness.ALEXNET.values()) / 15
    assert found["imagenet_c/classify/mce"] == pytest.approx(want)


def test_a_networks_published_errors():
    def top1(corruption, severity):
        return RESNET50.get(corruption, (0.0, 0.0))[0] / 100

    found = robustness.errors(done(top1))
    for corruption, (_, ce) in RESNET50.items():
        assert 100 * found[f"{corruption}/classify/ce"] == pytest.approx(ce, abs=0.011)


def test_a_suite_tells_it_once_all_is_there():
    config = runs.load("eval_robust.py")
    assert len(config.tasks) == 3 + 75
    results = done(lambda c, s: 0.5)
    flat = {f"{t}/{k}": v for t in results for k, v in results[t].items()}
    means = side_by_side.averages(config, results, flat)
    assert means["imagenet_c/classify/top1"] == 0.5
    assert means["imagenet_c/classify/mce"] > 0.5
    assert "mean/classify/top1" not in means  # the same, for there is one group
    del results["fog_3"]
    assert side_by_side.averages(config, results, flat) == {}
    table = side_by_side.table(
        {"run/checkpoints/1": {"imagenet_c/classify/mce": 0.517}}
    )
    assert "| imagenet_c/classify/mce | 51.70 |" in table


def test_means_over_several_groups_and_over_all_stay():
    tasks = {n: dict(group=g) for n, g in (("a", "x"), ("b", "x"), ("c", "y"))}
    results = {n: {"top1": v} for n, v in (("a", 0.2), ("b", 0.4), ("c", 0.9))}
    flat = {f"{n}/top1": v["top1"] for n, v in results.items()}
    means = side_by_side.averages(ConfigDict(dict(tasks=tasks)), results, flat)
    assert means == {"mean/top1": pytest.approx(0.5), "x/top1": pytest.approx(0.3)}


def test_the_published_figures_stand_beside_ours():
    row = published.find("finetune_vitl:mae", "imagenet_c/classify/mce", "eval_robust")
    assert row.value == 41.8
    row = published.find(
        "supervised_vith:modern", "imagenet_a/classify/ema/top1", "eval_robust"
    )
    assert row.value == 33.1
