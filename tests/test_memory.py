"""What a device has, what a step needs, which flags make it fit; runs without enough."""

import os
import re
import subprocess
import sys
import types

import jax
import pytest

from tests import runs
from vit_ssl_jax import build, errors, memory, remedies, train
from vit_ssl_jax.errors import UserError

GIB = 2**30
# Large beside its state, so that micro-batches help.
WIDE = dict(batch_size=64, vit__variant="2x64x4/4", steps=2)


def compiled_need(config):
    """What `memory_analysis` says of a config's own step."""
    program = build.make_run(config).program
    return memory.need_of(program, *memory.compile_step(program))


@pytest.fixture(scope="module")
def wide():
    """A config, its run and its need."""
    config = runs.small(**WIDE)
    return config, build.make_run(config), compiled_need(config)


def fake_device(platform="gpu", kind="NVIDIA H100", **stats):
    """Something with what `memory` asks of a device."""
    return types.SimpleNamespace(
        platform=platform, device_kind=kind, memory_stats=lambda: stats or None
    )


def test_a_device_has_its_pool_or_its_share_of_the_machine():
    assert memory.of_device(fake_device(bytes_limit=60 * GIB)) == 60 * GIB
    assert memory.of_device(fake_device()) is None
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.of_machine() <= ram
    assert memory.of_device(jax.devices()[0]) == memory.of_machine() // 8


def groups(tmp_path, line, files):
    """A `/proc/self/cgroup` with one line, and a folder of control groups."""
    mine = tmp_path / "mine"
    mine.write_text(line + "\n")
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    return mine, tmp_path / "groups"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        # Version 2, as a job of SLURM has it: the job's limit, not the step's "max".
        (
            "0::/slurm/job_7/step_0",
            {
                "slurm/job_7/step_0/memory.max": "max",
                "slurm/job_7/memory.max": "1000",
                "slurm/job_8/memory.max": "5",
            },
            1000,
        ),
        # A container sees its own group as the root.
        ("0::/host/name", {"memory.max": "2000"}, 2000),
        # Version 1, another controller's group beside it.
        (
            "4:memory:/a",
            {
                "memory/a/memory.limit_in_bytes": "3000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu/a/memory.limit_in_bytes": "5",
            },
            3000,
        ),
        ("0::/", {"memory.max": "max"}, None),
    ],
)
def test_a_control_group_limits_memory(tmp_path, line, files, expected):
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = memory.of_machine(*groups(tmp_path, line, files))
    assert found == (expected or ram)


def test_refusals_are_told_from_other_errors_and_have_bytes():
    gpu = (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes."
    )
    assert memory.refused_bytes(gpu) == 32 * GIB
    assert memory.refused_bytes(gpu.replace("34359738368 bytes", "1.5GiB")) == 1.5 * GIB
    assert memory.refused_bytes("INTERNAL: failed to allocate 12 registers") == 0


def test_an_error_for_want_of_memory_is_known_by_what_it_came_of():
    quota = RuntimeError("RESOURCE_EXHAUSTED: quota of requests to the store")
    assert not errors.is_exhausted(quota)
    assert errors.is_exhausted(MemoryError())
    outer = ValueError("the save failed")
    outer.__cause__ = RuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"
    )
    assert errors.is_exhausted(outer)


def test_the_words_for_bytes():
    gpu = fake_device()
    assert memory.size(159.14 * GIB) == "159 GiB"
    assert memory.size(1200 * GIB) == "1200 GiB"
    assert memory.size(14.77 * GIB) == "14.8 GiB"
    said = memory.share(159.14 * GIB, 59.4 * GIB, gpu)
    assert said == "159 GiB of 59.4 (NVIDIA H100 memory)"
    cpu = jax.devices()[0]  # one of eight that are one machine
    assert memory.share(2 * GIB, GIB, cpu) == "16 GiB of 8 (CPU memory)"
    assert memory.share(2 * GIB, None, gpu) == "2 GiB (NVIDIA H100 memory)"


def test_a_gpu_has_more_than_jax_takes():
    said = memory.pool_hint(fake_device(), 60 * GIB, {})
    assert "jax takes 75 %" in said and "MEM_FRACTION=0.95" in said and "76 GiB" in said
    given = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".95"}
    assert memory.pool_hint(fake_device(), 60 * GIB, given) == ""
    assert memory.pool_hint(fake_device("tpu"), 60 * GIB, {}) == ""


def test_arguments_are_the_shards_of_state_and_batch(wide):
    _, run, need = wide
    assert memory.argument_bytes(run.program) == pytest.approx(need.arguments, rel=0.01)


def test_temporaries_shrink_with_micro_batches_but_for_what_stays_whole():
    """By hand: views of a whole batch, and two gradients, beside a k-th of the rest."""
    config = runs.small(batch_size=64)
    parts = remedies.Parts(state=1000, batch=64, views=600, grads=200)
    need = memory.Need(arguments=1064, temporaries=8000)
    for changes, expected in (
        ({}, 1064 + 8000),
        ({"accum": 4}, 1064 + 8000 / 4 + 600 + 2 * 200),
        ({"batch_size": 16}, 1000 + 16 + 8000 / 4),
        ({"batch_size": 32, "accum": 2}, 1000 + 32 + 8000 / 4 + 300 + 2 * 200),
    ):
        assert remedies.estimate(config, parts, need, changes, parts) == expected
    config.accum = 2  # its temporaries hold what stays whole already
    got = remedies.estimate(config, parts, need, {"accum": 4}, parts)
    assert got == 1064 + (8000 - 1000) / 2 + 1000
    sharded = remedies.Parts(state=400, batch=64, views=600, grads=50)
    got = remedies.estimate(config, parts, need, {"accum": 4}, sharded)
    assert got == 464 + 7000 / 2 + 700


def test_parts_are_those_of_shapes(wide):
    config, run, _ = wide
    parts = remedies.parts_of(run)
    assert parts.state + parts.batch == memory.argument_bytes(run.program)
    images = config.batch_size * 32 * 32 * 3 * 4 // 8  # float32, on one of 8 devices
    assert images <= parts.views < 2 * images
    config = remedies.change(config, {"mesh.fsdp": 8})
    sharded = build.make_run(config).program
    assert remedies.parts_of(run, 8).state == memory.shard_bytes(sharded.state)
    assert remedies.parts_of(run, 8).state < parts.state


def test_the_advice_is_what_the_compiler_says_of_the_flags(wide):
    """Pasted into a config of its own, compiled anew."""
    config, run, need = wide
    limit = 0.6 * need.total
    measure = remedies.compiler(config, run, 1.0)
    advice = remedies.advise(config, run, need, limit, measure)
    assert advice.how == "compiled" and advice.bytes <= limit
    pasted = runs.small(**WIDE)
    for flag in advice.flags.split():
        key, _, value = flag.removeprefix("--config.").partition("=")
        pasted.update_from_flattened_dict({key: type_of(pasted, key)(value)})
    assert compiled_need(pasted).total == advice.bytes


def type_of(config, key):
    """Of a dotted key's value, as absl reads it."""
    for name in key.split("."):
        config = config[name]
    return type(config)


@pytest.mark.slow
def test_by_proportion_is_near_what_the_compiler_says():
    """Of a published recipe, 4096 images of 224 px on one device."""
    config, one = runs.load("mae_vitb.py"), jax.devices()[:1]
    run = build.make_run(config, one)
    need = memory.need_of(run.program, *memory.compile_step(run.program))
    assert need.total > 100 * GIB
    advice = remedies.advise(config, run, need, 20 * GIB)
    assert advice.changes == {"accum": 16} and advice.how == "by proportion"
    there = build.make_run(remedies.change(config, advice.changes), one).program
    real = memory.need_of(there, *memory.compile_step(there)).total
    assert advice.bytes == pytest.approx(real, rel=0.03)


@pytest.mark.slow
def test_a_slow_compilation_is_the_last():
    config = runs.small()
    run = build.make_run(config)
    assert remedies.compiler(config, run, remedies.SLOW)({"accum": 2}) is None
    measure = remedies.compiler(config, run, 0.1)
    found = [measure({"accum": 2}) for _ in range(remedies.TRIES + 1)]
    assert all(found[:-1]) and found[-1] is None


def test_a_heavy_state_is_sharded_first():
    config = runs.small(vit__variant="2x256x4/8", batch_size=16)
    run, need = build.make_run(config), compiled_need(config)
    state = remedies.parts_of(run).state
    assert state > remedies.HEAVY * need.total
    advice = remedies.advise(config, run, need, 0.9 * need.total)
    assert advice.changes["mesh.fsdp"] == 8
    build.make_run(remedies.change(config, advice.changes))


def test_nothing_helps_a_state_that_is_too_large(wide):
    config, run, need = wide
    advice = remedies.advise(config, run, need, need.arguments // 16)
    assert advice is None
    assert "a smaller config.vit.variant" in remedies.describe(advice)


def test_a_step_that_does_not_fit_ends_before_anything_is_written(
    wide, tmp_path, monkeypatch, capsys
):
    """And with what it says the same run ends well."""
    need = wide[2].total
    monkeypatch.setattr(memory, "of_device", lambda device: int(0.9 * need))
    with pytest.raises(UserError, match=r"^needs .* of .* \(CPU memory\); ") as told:
        train.train(runs.small(**WIDE), tmp_path)
    assert "looking for what fits" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    found = str(told.value).partition("--config.accum=")[2].partition(" ")
    assert found[0].isdecimal() and ", compiled" in found[2]
    train.train(runs.small(**WIDE, accum=int(found[0])), tmp_path)
    said = capsys.readouterr().out
    assert "memory: the step needs" in said and "first step, with compil" in said


def test_a_resume_that_is_finished_compiles_nothing(tmp_path, caplog):
    config = runs.small(steps=2)
    train.train(config, tmp_path)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        train.train(config, tmp_path)
    assert not any("jit(step)" in record.getMessage() for record in caplog.records)


LITTLE = """
import resource, sys
from vit_ssl_jax import command, fit, memory

kind, extra = sys.argv.pop(1), int(sys.argv.pop(1))

def limit():
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

def run(config, workdir):
    from vit_ssl_jax import loop, starting, train
    from vit_ssl_jax.evaluators import suite

    place, name = {
        "init": (starting, "first_state"),
        "step": (loop, "run_steps"),
        "evaluators": (suite.Suite, "evaluate"),
    }[kind]
    inner = getattr(place, name)

    def limited(*args):
        limit()
        return inner(*args)

    setattr(place, name, limited)
    train.train(config, workdir)

command.start(run, several=True, config="", workdir="")
"""


def run_with_little(kind, extra, workdir, **changes):
    """The command, which at `kind` gets no more than `extra` bytes from the system."""
    changes = runs.SMALL | {k.replace("__", "."): v for k, v in changes.items()}
    flags = [f"--config.{key}={value}" for key, value in changes.items()]
    return subprocess.run(
        [
            *(sys.executable, "-c", LITTLE, kind, str(extra)),
            *("--config=configs/quickstart.py:mae", f"--workdir={workdir}", *flags),
        ],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )


# 64 x 64 px in patches of 4: attention takes most of the step's memory.
ATTENTION = dict(vit__variant="2x32x4/4", batch_size=128, data__size="(64,64)", steps=2)


@pytest.mark.parametrize(
    ("kind", "extra", "changes", "said"),
    [
        (
            "step",
            300 << 20,
            ATTENTION,
            [
                r"the step was to need",
                r"--config\.accum=\d+ would take .* by proportion",
            ],
        ),
        pytest.param(
            *("init", 400 << 20, dict(vit__variant="4x1024x4/8", steps=1), []),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "evaluators",
            300 << 20,
            ATTENTION
            | {
                "steps": 1,
                "batch_size": 2,
                "evals.knn.every_epochs": 0.0,
                "data.eval_batch_size": 512,
            },
            [r"while evaluating", r"--config\.data\.eval_batch_size=256"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_memory_at_run_time_is_one_line(tmp_path, kind, extra, changes, said):
    """The system gives no more than so many bytes from there on."""
    done = run_with_little(kind, extra, tmp_path, **changes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: out of memory")
    for pattern in [*said, "the same command goes on from the last checkpoint"]:
        assert re.search(pattern, line), line


@pytest.mark.slow
def test_all_processes_come_to_the_same_verdict(tmp_path):
    """Of a batch of images that no machine holds; two processes compile nothing more."""
    port = runs.free_port()
    flags = [f"--coordinator=localhost:{port}", "--num_processes=2"]
    huge = dict(batch_size=1024, data__size="(4096,4096)", vit__variant="2x32x2/256")
    pair = [
        runs.command(tmp_path, *flags, f"--process_id={i}", devices=2, **huge)
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [1, 1], outputs
    last = {
        next(line for line in output.splitlines() if line.startswith("error: "))
        for output in outputs
    }
    assert len(last) == 1 and re.match(r"error: needs \d+ GiB of ", *last), last
    assert ", by proportion" in last.pop()
    assert not list(tmp_path.iterdir())


def test_odd_batches_have_advice_too():
    """Every divisor is a number of micro-batches, and any smaller batch that divides."""
    config = runs.small(batch_size=15)
    run = build.make_run(config, jax.devices()[:1])
    found = [changes["accum"] for changes in remedies.rungs(config, run, {})]
    assert found == [3, 5, 15]
    need = memory.Need(0, GIB)
    sizes = {c.get("batch_size", 15) for c in remedies.bases(config, run, need, GIB)}
    assert sizes == {15, 7, 3, 1}


def test_advice_is_in_the_units_of_what_is_needed():
    """Four CPU devices are one machine."""
    advice = remedies.Advice({"accum": 4}, 5 * GIB, "compiled")
    assert "20 GiB, compiled" in remedies.describe(advice, 4)
    assert "5 GiB, compiled" in remedies.describe(advice)
