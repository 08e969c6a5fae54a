"""Recipes of fine-tuning and transfer: their schedules and splits, as published."""

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import optim
from vit_ssl_jax.evaluators.probe import heads, sweep

VTAB = runs.arguments("transfer_vtab.py")


def optimizer(config):
    """The optimiser of a recipe on its own data, and its number of steps."""
    data = config.data
    steps = config.steps or int(config.epochs) * (
        data.num_examples // config.batch_size
    )
    sizes = dict(steps=steps, epochs=config.epochs, batch_size=config.batch_size)
    return optim.make_optimizer(config.optim, **sizes), steps


@pytest.mark.parametrize(
    ("name", "recipe", "steps", "warmup", "peak", "end"),
    [
        ("finetune_vitb.py", "mae", 125_100, 5 * 1251, 2e-3, 1e-6),
        ("finetune_vitl.py", "mae", 62_550, 5 * 1251, 4e-3, 1e-6),
        ("finetune_vith.py", None, 62_550, 5 * 1251, 4e-3, 1e-6),
        ("finetune_vitb.py", "maskfeat", 250_200, 20 * 2502, 2e-3, 1e-6),
        ("finetune_vitl.py", "maskfeat", 250_200, 5 * 5004, 1e-3, 1e-6),
        ("finetune_vitl.py", "partial", 125_100, 5 * 1251, 4e-3, 1e-6),
        ("finetune_transfer.py", "inat18,l", 21_350, 5 * 427, 4e-3, 1e-6),
        ("finetune_transfer.py", "places365,b", 176_100, 5 * 1761, 2e-3, 1e-6),
        ("lowshot_vitl.py", "10pct", 12_500, 5 * 250, 3e-5, 1e-6),
        ("lowshot_vith.py", "10pct_448", 12_500, 5 * 250, 3e-5, 1e-6),
        ("supervised_vitb.py", "original", 93_600, 10_000, 3e-3, 0.0),
        ("supervised_vitb.py", "modern", 93_600, 20 * 312, 1.6e-3, 0.0),
        ("supervised_vitl.py", "modern", 62_400, 20 * 312, 1.6e-3, 0.0),
        ("transfer_vitb.py", "imagenet", 20_000, 500, 0.03, 0.0),
        ("transfer_vitl.py", "cifar10", 10_000, 500, 0.003, 0.0),
        ("transfer_vith.py", "cifar100", 10_000, 500, 0.01, 0.0),
        ("transfer_vitb.py", "pets", 500, 100, 0.003, 0.0),
        ("transfer_vitb.py", "flowers", 500, 100, 0.003, 0.0),
        ("transfer_vtab.py", "dmlab", 2500, 200, 0.01, 0.0),
    ],
)
def test_schedules_are_the_published_ones(name, recipe, steps, warmup, peak, end):
    config = runs.load(name, *filter(None, [recipe]))
    made, ours = optimizer(config)
    assert ours == steps
    at = np.array([warmup // 2, warmup, (warmup + steps) // 2, steps])
    rate = np.asarray(made.schedules["lr"](at))
    expected = [peak / 2, peak, (peak + end) / 2, end]
    np.testing.assert_allclose(rate, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("task", [name for (name,) in VTAB])
def test_every_vtab_task_has_a_thousand_images(task):
    """Counted from the slices; none but Clevr and the small sets starts elsewhere."""
    data = runs.load("transfer_vtab.py", task).data
    parts = [part.split("[")[1].rstrip("]") for part in data.split.split("+")]
    ends = [[int(x or 0) for x in part.split(":")] for part in parts]
    assert [stop - start for start, stop in ends] == [800, 200]
    assert data.num_examples == 1000 and data.num_classes >= 2


def test_vtab_has_nineteen_tasks_and_its_crops_and_flips():
    assert len(VTAB) == 19
    settings = {}
    for (task,) in VTAB:
        data = runs.load("transfer_vtab.py", task).data
        assert data.squash and data.resize == 384 and data.crop == ()
        settings.setdefault((data.train_resize, data.flip), []).append(task)
    assert settings[0, False] == ["dsprites_location"]
    assert set(settings[0, True]) == {
        *("clevr_count", "clevr_distance", "dmlab", "kitti_distance")
    }
    assert set(settings[448, False]) == {"dsprites_orientation", "smallnorb_azimuth"}
    assert len(settings[448, True]) == 12


RELVIT = [
    f"relvit_{phase}.py" for phase in ("upstream", "finetune", "supervised", "joint")
]


@pytest.mark.parametrize("name", ["transfer_vtab.py", *RELVIT])
@pytest.mark.parametrize("arguments", [(), ("cars",)])
def test_a_set_that_is_unknown_or_missing_is_explained(name, arguments):
    first = (
        "caltech101, cifar100" if name == "transfer_vtab.py" else "cifar10, cifar100"
    )
    text = f"^{name}:{''.join(arguments)}: choose one of {first}, "
    with pytest.raises(ValueError, match=text):
        runs.load(name, *arguments)


@pytest.mark.parametrize("given", runs.arguments(RELVIT[0]))
def test_relvits_phases_have_the_same_data_and_schedule(given):
    """Their tables of the sets are four copies; the grid is 8x8 or, of 224 px, 7x7."""
    ours = []
    for name in RELVIT:
        config = runs.load(name, *given)
        data = config.data.to_dict()
        assert data.pop("label") in ("", "label")
        split = {judge.split for judge in config.evals.values() if "split" in judge}
        steps = config.steps, config.log_every, config.checkpoint_every, config.epochs
        ours.append((data, split, steps, config.vit.variant, config.optim))
    assert ours[1:] == ours[:1] * 3
    side, patch = data["size"][0], int(config.vit.variant.removeprefix("S/"))
    assert side == patch * (7 if side == 224 else 8)


@pytest.mark.parametrize("size", ["b", "l", "h"])
def test_transfer_has_the_values_of_the_imagenet_recipe(size):
    """But the data: the sets have their own, and neither ReaL nor V2."""
    arguments = ("mae",) if size != "h" else ()
    theirs = runs.load(f"finetune_vit{size}.py", *arguments).to_dict()
    for task in ("inat17", "inat18", "inat19", "places205", "places365"):
        ours = runs.load("finetune_transfer.py", f"{task},{size}").to_dict()
        assert ours["data"]["num_classes"] >= 205
        ours["data"] |= {k: theirs["data"][k] for k in ("name", "num_examples")}
        ours["data"]["num_classes"] = 1000
        ours["recipe"] = theirs["recipe"]
        assert list(ours["evals"]) == ["classify"]
        assert ours == theirs | {"evals": {"classify": theirs["evals"]["classify"]}}


def test_a_task_without_a_size_is_vit_l():
    config = runs.load("finetune_transfer.py", "inat19")
    assert config.recipe == "finetune_transfer:inat19,l"
    with pytest.raises(
        ValueError, match="finetune_transfer.py:inat21: choose one of in"
    ):
        runs.load("finetune_transfer.py", "inat21")


@pytest.mark.parametrize(
    "task, steps, last",
    [("cifar100", 28 * 193, 1e-3), ("clevr_count", 50 * 270, 1e-2)],
)
def test_vissls_rates(task, steps, last):
    """Of 49,500 and 69,300 images; three tenths, or a cosine to a hundredth."""
    c = runs.load("probe_transfer.py", task).evals.probe
    config = sweep.Config(**{key: c[key] for key in sweep.FIELDS})
    assert config.grid[0].tolist() == [np.float32(0.01)]
    factor = heads.make_schedule(config, steps / c.epochs)
    assert float(factor(0)) == 1.0
    np.testing.assert_allclose(float(factor(steps - 1)), last, rtol=1e-2)
    assert len(config.names("last1_mean")) == 1 and len(config.groups) == 4
