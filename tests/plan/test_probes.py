"""A probe's step planned: its memory and FLOPs by hand, on CPU devices and elsewhere."""

import importlib.util

import jax
import pytest

from tests import runs
from vit_ssl_jax import memory, recipes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import plan, probes, report

ENCODER = "quickstart.py:mae"  # 4 blocks of 128, 32 px in patches of 4, a class token
TOKENS, WIDTH, DEPTH, CLASSES = 65, 128, 4, 13


def suite(name="probe_vitl.py", recipe="mae", **probe):
    """A recipe of a probe on the images of the quickstart; `probe` are its changes."""
    config = runs.load(name, recipe).copy_and_resolve_references().unlock()
    config.variant = ""
    config.tasks.imagenet.update(dict(set="embedded", size=(), train="train[:50%]"))
    config.evals.probe.update(dict(batch_size=64, accum=2) | probe)
    return config


@pytest.fixture(scope="module")
def planned():
    """The plan of that for the devices at hand."""
    return plan(suite(), encoder=ENCODER)


def test_arguments_are_heads_encoder_and_batch(planned):
    """Parameters are whole on each of eight devices, of images it has an eighth."""
    block = 12 * WIDTH**2 + 13 * WIDTH
    encoder = DEPTH * block + 49 * WIDTH + WIDTH + 2 * WIDTH  # patch, token, norm
    heads = 2 * (WIDTH + 1) * CLASSES + 2 * WIDTH  # momentum, too; batch norm's numbers
    batch = 64 // 8 * (32 * 32 * 3 + 4)
    expected = 4 * (encoder + heads) + batch
    assert planned["argument_bytes"] == pytest.approx(expected, rel=0.01)
    assert planned["not_donated"] == []
    assert planned["accum"] == 2 and planned["batch_size"] == 64


def test_flops_are_those_of_a_pass_forward_and_of_the_heads(planned):
    n, d = TOKENS, WIDTH
    block = 2 * n * d * (3 * d + d + 8 * d) + 2 * 2 * n * n * d
    expected = DEPTH * block + 2 * 64 * 48 * d + 4 * d * CLASSES
    assert planned["model_flops_per_image"] == pytest.approx(expected, rel=1e-6)


def test_the_report_has_memory_by_name_and_no_word_of_training(planned):
    text = report.describe(planned)
    assert "params/blocks/block/mlp/up/kernel" in text
    assert "state.heads/last1_cls_bn512/kernel" in text and "batch/image" in text
    assert "verdict: fits" in text and "all-reduce" in text
    tight = planned | dict(fits=False, hbm_bytes=1)
    tight["advice"] = dict(flags="--config.evals.probe.accum=4", bytes=1, how="said")
    assert "--config.evals.probe.accum=4 would take" in report.describe(tight)
    assert "remat=full" not in report.describe(tight)


def test_what_does_not_fit_is_advised_more_pieces():
    _, run = probes.make_run(suite(), ENCODER, jax.devices(), print)
    need = memory.Need(arguments=10**8, temporaries=10**9)
    # 8 images a device: 1, 2, 4, 8 pieces; what is kept whole is some MB.
    found = probes.advise(run, need, 4 * 10**8, 64, 1)
    assert found["flags"] == "--config.evals.probe.accum=4"
    assert 350 * 10**6 < found["bytes"] < 353 * 10**6
    assert probes.advise(run, need, 2 * 10**8, 64, 1) is None


def test_the_encoder_is_the_published_one_of_the_protocol():
    said = []
    for name, recipe, expected in (
        ("probe_vitb.py", "ijepa", "ijepa_vitb"),
        ("probe_vith.py", "mae", "mae_vith"),
        ("probe_vitl.py", "dinov2", "mae_vitl"),
    ):
        config = runs.load(name, recipe)
        assert probes.load_encoder(config, "", said.append).recipe == expected
    assert said[0].startswith("encoder: that of ijepa_vitb.py; another by --encoder=")


def test_images_and_classes_are_those_of_the_recipes_set():
    trained = recipes.load("mae_vitl.py")
    task = runs.load("probe_vitl.py", "ijepa").tasks.imagenet
    assert probes.count(task, trained) == (round(0.99 * 1281167), 1000)


@pytest.mark.parametrize(
    ("changes", "encoder", "message"),
    [
        ({}, "eval_small.py", "--encoder=eval_small.py trains no encoder"),
        ({}, "nope.py", "nope.py doesn't exist"),
        (dict(batch_size=60), ENCODER, "config.evals.probe.batch_size: 60 doesn't"),
        (dict(readouts=((9, "mean"),)), ENCODER, "9"),
        (dict(augment=False), ENCODER, "plan takes what trains"),
    ],
)
def test_bad_input_is_told_before_compiling(changes, encoder, message):
    with pytest.raises(UserError, match=message):
        plan(suite(**changes), encoder=encoder)


def test_another_variant_or_set_than_the_recipes_is_told():
    config = suite()
    config.variant = "L/16"
    with pytest.raises(UserError, match=r"and probe_vitl:mae judges L/16"):
        plan(config, encoder=ENCODER)
    config.variant, config.tasks.imagenet.set = "", "no_such_set"
    with pytest.raises(UserError, match="images and classes of no_such_set"):
        plan(config, encoder=ENCODER)


@pytest.mark.slow  # ~ 60 s each
@pytest.mark.usefixtures("users_compiler")
@pytest.mark.parametrize("topology", ["v5e:2x2", "h100:4"])
def test_a_published_probe_is_planned_for_devices_elsewhere(topology):
    needed = {"v5e:2x2": "libtpu", "h100:4": "jax_cuda13_plugin"}[topology]
    if not importlib.util.find_spec(needed):
        pytest.skip(f"{needed} isn't installed")
    config = runs.load("probe_vitb.py", "mae").copy_and_resolve_references().unlock()
    config.evals.probe.update(dict(batch_size=512, accum=2))
    found = plan(config, topology)
    assert found["fits"] and found["violations"] is None
    assert found["images_per_second"] > 100 and 0.05 < found["peak_fraction"] < 1
    sent = {row["kind"] for row in found["collectives"]}
    assert sent and all(kind.startswith("all-reduce") for kind in sent), sent
