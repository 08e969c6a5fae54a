"""Every recipe: literal, complete, traced at full size, and one real step when shrunk."""

import ast

import jax
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build, evaluators, step

# Published: parameters of encoder and decoder without fixed tables (methods, 2(b), 3(b)).
PARAMETERS = {
    "mae_vitb": 111_655_680,
    "mae_vitl": 329_239_296,
    "mae_vith": 656_613_964,
    "maskfeat_vitb": 85_882_476,
    "ijepa_vitb": 85_646_592 + 11_238_912,
    "ijepa_vitl": 303_098_880 + 22_082_560,
    "ijepa_vith": 630_434_560 + 22_279_424,
    "ijepa_vith16_448": 630_664_960 + 22_279_424,
    "ijepa_vitg16": 1_011_092_608 + 29_475_712,
    "relvit_vitb": 86_973_124,
    "relvit_vitl": 305_383_620,
    "relvit_vith": 634_035_456,
    "relvit_upstream:cifar10": 21_628_480,
    "relvit_finetune:cifar10": 21_342_346,
    "relvit_joint:cifar10": 21_657_290,
    "finetune_vitb:mae": 86_567_656,
    "finetune_vitb:maskfeat": 86_567_656,
    "finetune_vitl:mae": 304_326_632,
    "finetune_vitl:maskfeat": 304_326_632,
    "finetune_vith": 632_045_800,
    # The same encoders and a linear layer to the bins of the cells of a patch.
    "colorization_vitb": 85_646_592 + (768 + 1) * 4 * 4 * 261,
    "colorization_vitl": 303_098_880 + (1024 + 1) * 4 * 4 * 261,
    "colorization_vith": 630_434_560 + (1280 + 1) * 2 * 2 * 261,
}


def load_all(name):
    """A recipe under each of its arguments."""
    return [runs.load(name, *arguments) for arguments in runs.arguments(name)]


def shrink(config):
    """The same recipe for a test: its grid, masks and schedule, a tiny network.

    The patch shrinks, not the grid, so masks are those of the recipe.
    """
    patch = int(config.vit.variant.split("/")[1])
    with config.unlocked():
        config.data.size = tuple(2 * side // patch for side in config.data.size)
        config.vit.variant = "2x32x4/2"
        config.batch_size = 16
        config.steps = 2
        config.method.update(runs.tiny_method(config.method, patch))
    return config


def distinct():
    """One recipe of each optimiser, `NAME[:ARGUMENT]`, of those published.

    Every method takes steps in tests/methods/test_all.py, with its recipe's values; all
    recipes are lowered by tests/compiled/test_lowered.py.
    """
    kinds = {}
    names = [name for name in runs.RECIPES if name != "own.py"]
    for config in (c for name in names for c in load_all(name)):
        kind = config.optim.name, config.optim.layer_decay < 1
        kinds.setdefault(kind, config.recipe)
    return list(kinds.values())


def check_text(name, command):
    """The file imports only its dict, and its docstring says how it is run."""
    text = (runs.ROOT / "configs" / name).read_text()
    tree = ast.parse(text)
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [n.module for n in imports] == ["ml_collections"]
    wanted = f"python -m vit_ssl_jax.{command} --config=configs/{name}"
    assert wanted in ast.get_docstring(tree)


def check_names(name):
    """A config is called what its file and its argument are."""
    for arguments in runs.arguments(name):
        want = ":".join((name.removesuffix(".py"), *arguments))
        assert runs.load(name, *arguments).recipe == want


@pytest.mark.parametrize("name", runs.RECIPES)
def test_a_recipe_is_literal_and_says_how_it_is_run(name):
    check_text(name, "main")
    check_names(name)


def test_published_sizes_belong_to_recipes_that_exist():
    known = {config.recipe for name in runs.RECIPES for config in load_all(name)}
    assert set(PARAMETERS) <= known


@pytest.mark.parametrize("name", runs.EVALUATIONS)
def test_an_evaluation_is_literal_and_says_how_it_is_run(name):
    check_text(name, "evaluate")
    check_names(name)


def test_configs_of_a_kind_have_the_same_keys():
    """Of evaluators: those of the same kind, for training and for evaluation."""
    for names in (runs.RECIPES, runs.EVALUATIONS):
        kinds = {}
        for config in (c for name in names for c in load_all(name)):
            own = ("own", "baselines", "otherwise")  # of some alone, see own.py
            top = tuple(key for key in config if key not in own)
            kinds.setdefault("config", set()).add(top)
            for group in (
                *("vit", "optim", "data", "online", "health", "nonfinite", "spike"),
            ):
                if group in config:
                    kinds.setdefault(group, set()).add(tuple(sorted(config[group])))
            for task in config.get("tasks", {}).values():
                kinds.setdefault("task", set()).add(tuple(sorted(task)))
            for name, settings in config.evals.items():
                kind = evaluators.kind(name)
                kinds.setdefault(kind, set()).add(tuple(sorted(settings)))
        assert {kind: len(keys) for kind, keys in kinds.items()} == dict.fromkeys(
            kinds, 1
        )


def different(configs):
    """Of the configs of a file those whose programs differ."""
    kinds = {}
    for config in configs:
        program = (config.method, config.vit, config.data.size, config.optim.name)
        kinds.setdefault(str(program), config)
    return list(kinds.values())


@pytest.mark.parametrize("name", [n for n in runs.RECIPES if "vitb" in n])
def test_a_recipe_traces_at_full_size(name):
    """Of ViT-B's; tests/compiled/test_lowered.py lowers all."""
    for config in different(load_all(name)):
        run = build.make_run(config)
        program = run.program
        key = jax.random.key(0)
        lowered = program.step.lower(program.state, program.batch, key)
        state, metrics = lowered.out_info
        assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(
            lambda x: x.shape, program.state
        )
        assert metrics["train/loss"].shape == ()


@pytest.mark.parametrize("name", runs.RECIPES)
def test_a_recipe_has_the_parameters_of_the_published_model(name):
    for config in load_all(name):
        if config.recipe in PARAMETERS:
            params = build.make_run(config).program.state.params
            count = sum(np.prod(x.shape) for x in jax.tree.leaves(params))
            assert count == PARAMETERS[config.recipe]


@pytest.mark.parametrize("name", distinct())
def test_a_shrunken_recipe_takes_a_step(name):
    file, *arguments = name.split(":")
    config = shrink(runs.load(f"{file}.py", *arguments))
    run = build.make_run(config, jax.devices()[:1])
    key = jax.device_put(jax.random.key(0), run.program.replicated)
    state = run.program.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = dict(
        image=rng.integers(0, 256, (16, *config.data.size, 3), np.uint8),
        label=np.zeros(16, np.int32),
        id=np.arange(16, dtype=np.int32),
    )
    state, metrics = run.program.step(state, step.put_batch(batch, run.mesh), key)
    assert np.isfinite(float(metrics["train/loss"]))
    assert int(state.step) == 1
