"""The command from outside: on CPU devices, with bad input, and for real slices."""

import json
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import build, memory
from vit_ssl_jax import plan as planning
from vit_ssl_jax.plan import report

KEYS = {
    "topology",
    "chips",
    "fits",
    "hbm_bytes",
    "argument_bytes",
    "temp_bytes",
    "total_bytes",
    "model_flops_per_image",
    "cycles_per_image",
    "peak_fraction",
    "collectives",
    "compile_seconds",
    "parts",
}
SMALL = [f"--config.{key}={value}" for key, value in runs.SMALL.items()]


def start(*flags, devices=4, config="configs/quickstart.py:mae", env=()):
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vit_ssl_jax.plan", f"--config={config}", *flags],
        cwd=runs.ROOT,
        env=runs.environment(devices) | dict(env),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """The output and the JSON of a plan for four CPU devices."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    done = start(*SMALL, "--config.mesh.fsdp=2", f"--json={file}")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_devices_at_hand_have_memory_collectives_and_flops_but_no_cycles(on_cpu):
    text, found = on_cpu
    assert set(found) >= KEYS
    assert found["topology"] == "devices" and found["chips"] == 4
    assert found["mesh"] == dict(data=2, fsdp=2, tensor=1)
    assert found["fits"] and found["total_bytes"] < found["hbm_bytes"]
    assert found["cycles_per_image"] is None and found["parts"] is None
    assert found["not_donated"] == []
    assert "verdict: fits" in text and "overwritten in place" in text


def test_arguments_are_the_state_and_the_batch(on_cpu):
    """By the shapes of one device's shards, which the compiler had no part in."""
    found = on_cpu[1]
    config = runs.small("mae", mesh__fsdp=2)
    run = build.make_run(config, jax.devices()[:4])
    leaves = jax.tree.leaves((run.program.state, run.program.batch["image"]))
    expected = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in leaves
    )
    assert found["argument_bytes"] == pytest.approx(expected, rel=0.01)
    assert found["model_flops_per_image"] == build.step_flops(config) / 16


def test_gradients_are_summed_over_both_axes_and_weights_gathered(on_cpu):
    rows = on_cpu[1]["collectives"]
    reduced = {row["axis"] for row in rows if row["kind"] != "all-gather"}
    assert {"data", "fsdp"} <= set("+".join(reduced).split("+"))
    assert any(r["kind"] == "all-gather" and r["axis"] == "fsdp" for r in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--topology=v5litepod-8"],
            "--topology: 'v5litepod-8' is no topology; valid are",
        ),
        (["--config.mesh.fsdp=3"], "config.mesh: data=-1, fsdp=3"),
        (["--config.batch_size=30"], "config.batch_size: 30 doesn't divide"),
        (["--search"], "--search: only named devices have estimates"),
        pytest.param(
            ["--global_batch=64"],
            "--global_batch is for --search",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--json=/no/such/folder/x.json"],
            "--json: /no/such/folder/x.json",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_one_line_before_any_compilation(flags, message):
    done = start(*SMALL, *flags)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_a_config_that_trains_nothing_is_refused():
    done = start("--topology=v5e:2x2", config="configs/eval_imagenet.py")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: --config: eval_imagenet judges checkpoints")


def test_a_refusal_for_memory_is_told_from_other_errors():
    text = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
        "HLO temporaries (31.13G) exceeds available HBM (15.75G)."
    )
    assert memory.refused_bytes(text) == int(31.13 * 2**30)
    assert memory.refused_bytes("Used 512.5M of 15.75G hbm.") == int(512.5 * 2**20)
    assert memory.refused_bytes("INTERNAL: Mosaic failed to compile") == 0


@pytest.mark.parametrize(
    ("devices", "width", "slices", "expected"),
    # 1408 values don't divide over 256 shards, but over 128; slices share nothing.
    [(8, 768, 1, 8), (256, 768, 1, 256), (256, 1408, 1, 128), (8, 768, 2, 1)],
)
def test_the_leanest_mesh_is_one_that_axes_divide_over(
    devices, width, slices, expected
):
    params = {
        "qkv": {
            "kernel": jax.ShapeDtypeStruct((width, 3, 16, width // 16), np.float32)
        },
        "up": {"kernel": jax.ShapeDtypeStruct((width, 4 * width), np.float32)},
    }
    chips = [
        types.SimpleNamespace(slice_index=i % slices, platform="tpu")
        for i in range(devices)
    ]
    mesh = types.SimpleNamespace(
        shape=dict(data=devices, fsdp=1, tensor=1), devices=np.array(chips)
    )
    program = types.SimpleNamespace(state=types.SimpleNamespace(params=params))
    run = types.SimpleNamespace(mesh=mesh, program=program)
    assert planning.leanest_fsdp(run) == expected


def test_what_does_not_fit_names_what_helps():
    """With the value that was computed, and how; a machine has no chips."""
    found = dict(hbm_bytes=16, total_bytes=24, fits=False, device="TPU v5 lite")
    found |= dict(mesh=dict(data=8, fsdp=1, tensor=1), leanest_fsdp=8)
    advice = dict(flags="--config.mesh.fsdp=8 --config.accum=4", bytes=9 << 30)
    advice["how"] = "by proportion"
    text = report.verdict(found | dict(remat="dots", advice=advice))
    assert "1.50 times" in text and "more chips" in text
    assert "--config.accum=4 would take 9.00 GiB, by proportion" in text
    assert text.count("mesh.fsdp=8") == 1 and "vit.remat=full" in text
    text = report.verdict(found | dict(remat="full", advice=None, leanest_fsdp=1))
    assert "remat" not in text and "accum" not in text and "more chips" in text
    text = report.verdict(found | dict(remat="full", advice=None, device="cpu"))
    assert "chips" not in text and "more memory" in text


def test_a_machine_has_no_hbm(on_cpu):
    assert "  RAM " in on_cpu[0] and "HBM" not in on_cpu[0]


@pytest.mark.slow
def test_the_advice_for_devices_at_hand_is_what_their_compiler_says(
    monkeypatch,
):
    """By a plan with the value that the first one gives."""
    config = runs.small("mae", vit__variant="2x64x4/4", batch_size=64)
    whole = planning.plan(config)
    assert whole["fits"] and whole["advice"] is None
    most = int(0.7 * whole["total_bytes"])
    monkeypatch.setattr(memory, "of_device", lambda device: most)
    found = planning.plan(config)
    assert not found["fits"] and found["advice"]["how"] == "compiled"
    flag, _, value = found["advice"]["flags"].partition("=")
    assert flag == "--config.accum"
    config.accum = int(value)
    less = planning.plan(config)
    assert less["fits"] and less["total_bytes"] == found["advice"]["bytes"]


SLICE = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
VIT = ["--config.vit.variant=2x128x2/8", "--config.vit.dtype=bfloat16"]


@pytest.fixture(scope="module")
def on_slice(tmp_path_factory):
    """A plan for v5e:2x2, sharded over fsdp: text and JSON."""
    pytest.importorskip("libtpu")
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    flags = [*SMALL, *VIT, "--config.mesh.fsdp=2", f"--json={file}"]
    done = start(*flags, "--topology=v5e:2x2", env=SLICE)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


@pytest.mark.slow
def test_a_slice_has_cycles_by_part_that_add_up(on_slice):
    text, found = on_slice
    assert found["chips"] == 4 and found["hbm_bytes"] == 15.75 * 2**30
    assert sum(found["parts"].values()) == pytest.approx(found["cycles_per_image"])
    for part in ("attention scores", "projections", "MLP", "optimizer"):
        assert found["parts"][part] > 0, part
    assert 0 < found["peak_fraction"] < 1
    peak = found["model_flops_per_image"] / found["cycles_per_image"] / 131_072
    assert found["peak_fraction"] == pytest.approx(peak)
    assert found["not_donated"] == [] and found["unknown_loops"] == []
    assert found["violations"] == [] and found["kernels"]
    assert all(row["units"]["MXU"] >= 0 for row in found["kernels"])
    assert found["images_per_second"] > 0 and "estimate, no measurement" in text


@pytest.mark.slow
def test_on_a_slice_weights_are_gathered_and_gradients_summed(on_slice):
    rows = on_slice[1]["collectives"]
    axes = "+".join(row["axis"] for row in rows).split("+")
    assert {"data", "fsdp"} <= set(axes)
    assert any(r["kind"] == "all-gather" and r["axis"] == "fsdp" for r in rows)
    assert 0 <= on_slice[1]["communication"]["exposed_share"] < 1


@pytest.mark.slow
def test_two_slices_exchange_over_the_network_and_keep_the_contracts(tmp_path):
    pytest.importorskip("libtpu")
    file = tmp_path / "plan.json"
    flags = [*SMALL, *VIT, f"--json={file}"]
    done = start(*flags, "--topology=2*v5e:2x2", env=SLICE)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["chips"] == 8 and found["mesh"] == dict(data=8, fsdp=1, tensor=1)
    assert found["violations"] == [] and "contracts kept" in done.stdout
    assert any(row["axis"] == "slices" for row in found["collectives"])


@pytest.mark.slow
def test_what_the_compiler_refuses_is_a_verdict(tmp_path):
    pytest.importorskip("libtpu")
    file = tmp_path / "plan.json"
    flags = [*SMALL, "--config.batch_size=65536", "--config.data.size=(512,512)"]
    flags += ["--config.vit.variant=2x128x2/16", f"--json={file}"]
    done = start(*flags, "--topology=v5e:1x1", env=SLICE)
    assert done.returncode == 1, done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("error: quickstart")
    found = json.loads(file.read_text())
    assert not found["fits"] and found["total_bytes"] > found["hbm_bytes"]
    assert "DOESN'T FIT" in done.stdout and "What helps" in done.stdout


def test_images_on_the_devices_are_said_not_to_be_counted():
    heard = []
    planning.plan(runs.small(data__device_cache=True), say=heard.append)
    assert heard == [planning.NOT_COUNTED]
