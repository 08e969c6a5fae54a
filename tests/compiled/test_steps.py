"""The step of every method, at ViT-B's widths and the recipe's tokens, compiled.

For a TPU slice and for a host with GPUs; only depth and batch are smaller.
"""

import dataclasses
import re

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, methods, partition, step
from vit_ssl_jax.models import layers
from vit_ssl_jax.plan import contracts, roofline, topologies
from vit_ssl_jax.plan.program import hlo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_compiler")]
FUSED, HOST = "tpu_custom_call", "h100:4"
HASTE = {"exec_time_optimization_effort": -1.0}  # of a TPU's compiler: half the time
# An encoder and a classifier on more images; they are lowered in test_lowered.py.
LIKE_SUPERVISED = {"rotation", "jigsaw"}


def shrink(config):
    """A recipe's two first layers, for 64 images; more take the compiler longer."""
    depth = {key: 2 for key in config.method if key.endswith("_depth")}
    with config.unlocked():
        config.vit.variant = config.vit.variant.replace("B/", "2x768x12/")
        config.method.update(depth)
        config.batch_size, config.steps = 64, 10
    assert config.vit.variant.startswith("2x768x12/") and config.vit.dtype == "bfloat16"
    return config


def compile_step(config, target):
    """The optimised program of a recipe's step, as text."""
    _, devices, options = target
    run = build.make_run(config, devices)
    text = step.lower(run.program).compile(compiler_options=options or HASTE).as_text()
    jax.clear_caches()
    return text


def scores(module):
    """Shapes of a head's queries by its keys among the arrays of attention."""
    ends = {
        array.shape[-2:]
        for items in module.computations.values()
        for item in items
        for array in item.arrays
        if len(array.shape) == 4 and "attn" in item.source
    }
    return [end for end in ends if end[0] == end[1] and end[0] > 48]


@pytest.mark.parametrize("method", sorted(set(methods.names()) - LIKE_SUPERVISED))
def test_every_method_compiles_and_keeps_to_the_contracts(target, method):
    """By its fused blocks or by cuDNN's attention; nothing gathered, nothing copied."""
    text = compile_step(shrink(runs.load(f"{method}_vitb.py")), target)
    assert contracts.violations(text, dtype="bfloat16") == []
    module = hlo.parse(text)
    on_gpu = target[0].startswith("h100")
    assert (FUSED in text) != on_gpu
    assert (roofline.calls(module)["cudnn"] >= 3) == on_gpu
    assert scores(module) == []


def test_a_step_that_may_be_left_out_compiles_and_sends_no_more(target):
    """The state of before is kept on the devices, and the bound needs no host."""
    config = shrink(runs.load("mae_vitb.py"))
    config.nonfinite.policy = config.spike.policy = "skip"
    text = compile_step(config, target)
    assert contracts.violations(text, dtype="bfloat16") == []


def test_vit_s_compiles_for_one_chip():
    """Whose kernels, of few columns, are joined with what surrounds them: Imagenette's step."""
    pytest.importorskip("libtpu")
    devices, chip = topologies.get_devices("v5e:1x1")
    config = runs.load("imagenette.py", "supervised")
    with config.unlocked():
        config.vit.variant, config.steps = "2x384x6/16", 10
    target = "v5e:1x1", devices, topologies.options("v5e:1x1", chip)
    text = compile_step(config, target)
    assert FUSED in text and contracts.violations(text, dtype="bfloat16") == []


def test_blocks_of_later_vits_compile_and_keep_to_the_contracts(target):
    """Registers, LayerScale, SwiGLU, rotary positions: plain blocks, cuDNN's attention."""
    config = shrink(runs.load("supervised_vitb.py"))
    extras = "registers=4,layerscale=1e-05,rope=100.0,mlp=swiglu"
    with config.unlocked():
        config.vit.variant = f"2x768x12/16,{extras}"
        config.vit.posemb = "none"
    text = compile_step(config, target)
    assert contracts.violations(text, dtype="bfloat16") == []
    on_gpu = target[0] == HOST
    assert FUSED not in text
    assert (roofline.calls(hlo.parse(text))["cudnn"] >= 3) == on_gpu


def host():
    """The target that is a host with GPUs."""
    devices, chip = topologies.get_devices(HOST)
    return HOST, devices, topologies.options(HOST, chip)


@pytest.mark.parametrize("what", ["projection in float32", "batch not pinned"])
def test_breaches_show_on_gpus_too(what, monkeypatch):
    """As they do on TPUs: tests/plan/test_contracts.py."""
    pytest.importorskip("jax_cuda13_plugin")
    dense = layers.dense

    def upcast(features, style, name, **more):
        if name == "out":
            style = dataclasses.replace(style, dtype="float32")
        return dense(features, style, name, **more)

    if what == "projection in float32":
        monkeypatch.setattr(layers, "dense", upcast)
        expected = r"float32 matmul of f32\[.*attn/out"
    else:
        monkeypatch.setattr(partition, "pin_batch", lambda x: x)
        expected = r"all-(gather|to-all) of .*no parameter"
    text = compile_step(shrink(runs.load("mae_vitb.py")), host())
    found = contracts.violations(text, dtype="bfloat16")
    assert found and all(re.match(expected, line) for line in found), found


def test_plain_attention_would_show():
    """Scores in memory, no call of cuDNN's."""
    pytest.importorskip("jax_cuda13_plugin")
    config = shrink(runs.load("supervised_vitb.py"))
    config.vit.kernels = "plain"
    module = hlo.parse(compile_step(config, host()))
    assert scores(module) and not roofline.calls(module)["cudnn"]
