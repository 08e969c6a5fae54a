"""Contracts on the compiled step of every method, and that breaches of them show."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from tests import runs
from vit_ssl_jax import build, methods, partition, plan, step, train
from vit_ssl_jax.kernels import parts
from vit_ssl_jax.models import layers
from vit_ssl_jax.plan import contracts, topologies
from vit_ssl_jax.plan.program import collectives, hlo

TOPOLOGY = "v5e:2x2"


@pytest.fixture(scope="module")
def compile_step():
    """`method -> text` of its tiny step in bfloat16, data x fsdp = 2 x 2."""
    pytest.importorskip("libtpu")
    devices, _ = topologies.get_devices(TOPOLOGY, say=lambda text: None)
    options = {
        "jax_default_matmul_precision": None,
        "jax_disable_most_optimizations": False,
    }
    before = {name: jax.config.values[name] for name in options}

    def text(method, variant="2x64x2/2"):
        config = shrink(runs.load(f"{method}_vitb.py"), variant)
        for name, value in options.items():
            jax.config.update(name, value)
        try:
            compiled, refusal = plan.compile_step(build.make_run(config, devices))
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
        assert not refusal
        return compiled.as_text()

    return text


def shrink(config, variant):
    """A recipe with a tiny network, tiny pixels and the masks and grids it has."""
    patch = int(config.vit.variant.split("/")[1])
    with config.unlocked():
        config.data.size = tuple(2 * side // patch for side in config.data.size)
        config.vit.variant = variant
        config.mesh.fsdp = 2
        config.batch_size = 32
        config.steps = 10
        config.method.update(runs.tiny_method(config.method, patch))
    assert config.vit.dtype == "bfloat16"
    return config


@pytest.mark.slow
def test_float32_matmul_in_a_kernel_is_found(compile_step, monkeypatch):
    """A kernel's products are read from its own code."""
    dot = parts.dot

    def upcast(left, right, *axes):
        return dot(left.astype(jnp.float32), right.astype(jnp.float32), *axes)

    monkeypatch.setattr(parts, "dot", upcast)
    text = compile_step("supervised", variant="2x128x2/2")
    found = contracts.violations(text, dtype="bfloat16")
    assert len(found) > 10
    assert all(line.startswith("float32 matmul of vector<") for line in found)


@pytest.mark.slow
def test_unpinned_batch_is_found(compile_step, monkeypatch):
    """Without the constraint the partitioner gathers activations."""
    monkeypatch.setattr(partition, "pin_batch", lambda x: x)
    found = contracts.violations(compile_step("mae"), dtype="bfloat16")
    assert found
    assert all(
        re.match("all-(gather|to-all) of .*no parameter", line) for line in found
    )


@pytest.mark.slow
def test_float32_projection_is_found(compile_step, monkeypatch):
    """A projection in float32 is named by its place; a float32 model is none of it."""
    dense = layers.dense

    def upcast(features, style, name, **more):
        if name == "qkv":
            style = dataclasses.replace(style, dtype="float32")
        return dense(features, style, name, **more)

    monkeypatch.setattr(layers, "dense", upcast)
    text = compile_step("supervised")
    found = contracts.violations(text, dtype="bfloat16")
    assert any("float32 matmul" in line and "attn/qkv" in line for line in found)
    assert all("float32 matmul" in line for line in found)
    assert contracts.violations(text, dtype="float32") == []


@pytest.mark.slow
def test_callback_in_the_loss_is_found(compile_step, monkeypatch):
    """Looking at a value from within the step reaches for the host."""
    make = methods.make

    def watched(*given):
        method = make(*given)

        def loss_fn(outputs, targets):
            loss, metrics = method.loss_fn(outputs, targets)
            jax.debug.callback(print, loss)
            return loss, metrics

        return dataclasses.replace(method, loss_fn=loss_fn)

    monkeypatch.setattr(methods, "make", watched)
    found = contracts.violations(compile_step("supervised"), dtype="bfloat16")
    assert found
    assert all(line.startswith("host transfer") for line in found)


@pytest.mark.slow
def test_state_that_is_not_donated_is_found(compile_step, monkeypatch):
    """Every array of the state is named."""
    jit = jax.jit

    def keep(function, donate_argnums=(), **more):
        return jit(function, **more)

    monkeypatch.setattr(step.jax, "jit", keep)
    found = contracts.violations(compile_step("supervised"), dtype="bfloat16")
    assert "not donated: state.params" in "\n".join(found)
    assert all(line.startswith("not donated: state") for line in found)


BETWEEN_SLICES = """HloModule step, is_scheduled=true

ENTRY %main (w: f32[96,768], q: u8[8,4]) -> f32[96,768] {
  %w = f32[96,768]{1,0} parameter(0), sharding={devices=[8,1]<=[8]}, metadata={op_name="state.params['w']"}
  %q = u8[8,4]{1,0} parameter(1), metadata={op_name="batch['image']"}
  %all = token[] after-all()
  %recv.1 = (f32[2,96,768]{2,1,0}, u32[], token[]) recv(%all), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}
  %send.1 = (f32[96,768]{1,0}, u32[], token[]) send(%w, %all), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}
  %sent = token[] send-done(%send.1), is_host_transfer=true
  %got = (f32[2,96,768]{2,1,0}, token[]) recv-done(%recv.1), is_host_transfer=true
  %both = f32[2,96,768]{2,1,0} get-tuple-element(%got), index=0
  %long = bf16[768,192]{1,0} copy(%both)
  %one = f32[2,768,768]{2,1,0} all-gather(%both), channel_id=3, replica_groups=[2,4]<=[8]
  %two = bf16[768,1536]{1,0} all-gather(%long), channel_id=4, replica_groups=[2,4]<=[8]
  ROOT %new = f32[96,768]{1,0} copy(%w)
}
"""


def test_what_slices_exchange_is_neither_a_transfer_nor_an_activation():
    """Hosts carry it, and a parameter's shards meet those of the other slice first."""
    found = contracts.violations(BETWEEN_SLICES, dtype="bfloat16", slices=2)
    assert found == ["not donated: state.params/w"]
    found = contracts.violations(BETWEEN_SLICES, dtype="bfloat16", slices=1)
    assert [line.split(",")[0] for line in found[:2]] == [
        "all-gather of f32[2",
        "all-gather of bf16[768",
    ]
    other = BETWEEN_SLICES.replace("_xla_megascale_transfer_type", "_xla_other")
    found = contracts.violations(other, dtype="bfloat16", slices=2)
    assert found[:2] == [
        f"host transfer by {n}: {n}.1 ".rstrip() for n in ("recv", "send")
    ]


SUMMED = """HloModule step, is_scheduled=true

ENTRY %main (w: f32[2,64,32], b: f32[2,64], q: u8[8,4]) -> f32[2,64,32] {
  %w = f32[2,64,32]{2,1,0} parameter(0), sharding={devices=[1,1,2,4]<=[8] last_tile_dim_replicate}, metadata={op_name="state.params['blocks']['block']['w']"}
  %b = f32[2,64]{1,0} parameter(1), sharding={replicated}, metadata={op_name="state.params['blocks']['block']['b']"}
  %q = u8[8,4]{1,0} parameter(2), metadata={op_name="batch['image']"}
  %part = f32[65,16]{1,0} copy(%w)
  %sum = f32[65,64]{1,0} all-gather(%part), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={1}
  %other = f32[65,32]{1,0} all-gather(%part), channel_id=2, replica_groups={{0,1}}, dimensions={1}
  ROOT %new = f32[2,64,32]{2,1,0} copy(%w)
}
"""


def test_what_ends_a_sum_between_slices_is_a_layer_s_gradients():
    """64 x 64 weights and 64 biases together; half as many values are an activation."""
    found = contracts.violations(SUMMED, dtype="float32", slices=2)
    gathers = [line for line in found if line.startswith("all-gather")]
    assert len(gathers) == 1 and gathers[0].endswith("other")
    found = contracts.violations(SUMMED, dtype="float32", slices=1)
    assert sum(line.startswith("all-gather") for line in found) == 2


EXCHANGED = """HloModule step, is_scheduled=true

ENTRY %main (w: f32[96,768], q: u8[8,4]) -> f32[96,768] {
  %w = f32[96,768]{1,0} parameter(0), sharding={devices=[8,1]<=[8]}, metadata={op_name="state.params['w']"}
  %q = u8[8,4]{1,0} parameter(1), metadata={op_name="batch['image']"}
  %x = f32[64,197,4,192]{3,2,1,0} copy(%w)
  %go = ((f32[64,197,4,192]{3,2,1,0}), f32[64,197,4,192]{3,2,1,0}) all-to-all-start(%x), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={2}
  %come = f32[64,197,4,192]{3,2,1,0} all-to-all-done(%go)
  ROOT %new = f32[96,768]{1,0} copy(%w)
}
"""


def test_an_exchange_that_is_begun_and_ended_apart_is_found():
    """As GPUs' are; its bytes are those of one side."""
    (line, *_) = contracts.violations(EXCHANGED, dtype="bfloat16")
    assert line.startswith("all-to-all of f32[64,197,4,192], no parameter: go")
    (row,) = collectives.find(hlo.parse(EXCHANGED), dict(data=1, fsdp=4, tensor=1))
    assert row["kind"] == "all-to-all" and row["bytes"] == 64 * 197 * 4 * 192 * 4


def count_steps_compiled(caplog, workdir):
    """Trains a few steps; returns how many programs `step` was compiled to."""
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        train.train(runs.small(steps=4), workdir)
    texts = [record.getMessage() for record in caplog.records]
    return sum(
        text.startswith("Finished XLA compilation of jit(step)") for text in texts
    )


def test_run_compiles_one_step(caplog, tmp_path):
    """Logging, evaluation and saving between steps change nothing."""
    assert count_steps_compiled(caplog, tmp_path) == 1


def test_a_batch_that_asks_for_a_second_program_is_refused(tmp_path, monkeypatch):
    """Labels of another type: the step was compiled for those of the first batch."""
    put, calls = step.put_batch, []

    def change(batch, mesh):
        calls.append(batch)
        label = jnp.int32 if len(calls) < 3 else jnp.uint8
        return put(batch | {"label": batch["label"].astype(label)}, mesh)

    monkeypatch.setattr(step, "put_batch", change)
    with pytest.raises(TypeError, match=r"label.*uint8"):
        train.train(runs.small(steps=4), tmp_path)
    assert len(calls) == 3
