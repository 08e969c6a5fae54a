"""What a run will take on TPUs or GPUs, there or not, before it is started.

The very step that trains is compiled for those devices, which needs none of them, and
the compiled program is read. `python -m vit_ssl_jax.plan` is the command.
"""

import importlib.metadata
import math
import time
import types
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from vit_ssl_jax import build, fit, memory, partition, remedies
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import contracts, probes, timing, topologies
from vit_ssl_jax.plan.program import buffers, hlo

LARGEST = 12  # arrays that are named
NOT_COUNTED = (
    "note: the images of config.data.device_cache aren't in the plan: their bytes, height x "
    "width x 3 each, come to those of every chip, and the host delivers none"
)


def plan(
    config: ConfigDict,
    topology: str = "devices",
    say: Callable[[str], None] = print,
    encoder: str = "",
) -> dict:
    """Compiles the step of `config` for `topology` and reads it: a dict of plain values.

        plan(recipes.load("mae_vitl.py", batch_size=512), "v5e:4x8")["total_bytes"]

    `topology` is a slice of TPUs (`v5e:4x8`, `2*v5e:4x4`), cards (`h100:8`, `2*h100:8`)
    or "devices", those at hand. Bytes are one chip's; cycles are the compiler's
    estimates, None where it gives none (CPU, GPU); a GPU's seconds are `roofline`'s; a
    program that the compiler refuses for want of memory is a plan that doesn't fit,
    with None for what isn't known then. Raises UserError before compiling where the
    topology isn't one, or config, mesh and batch don't go with it. `say` hears warnings.

    Of `configs/probe_*.py` it is the step of the probe; `encoder` is the recipe of what
    is judged, "" the published one.
    """
    config = config.copy_and_resolve_references()
    devices, chip = topologies.get_devices(topology, say)
    config, run = make_run(config, encoder, devices, say)
    figures = describe(config, run, topology, devices, chip)
    start, module, costs, breaches = time.perf_counter(), None, None, None
    compiled, refusal = compile_step(run, topologies.options(topology, chip))
    figures["compile_seconds"] = round(time.perf_counter() - start, 1)
    if compiled:
        text = compiled.as_text()
        module = hlo.parse(text)
        costs = timing.kernel_costs(text, module, chip, say)
    if compiled and chip and not figures["frozen"]:
        kept = dict(dtype=config.vit.dtype, slices=partition.count_slices(devices))
        breaches = contracts.violations(text, **kept)
    figures["violations"] = breaches
    figures |= measure_memory(config, run, compiled, refusal, figures)
    figures |= read_buffers(module)
    return figures | timing.read(module, costs, chip, figures, run, config)


def describe(config, run, topology, devices, chip):
    """What a plan says before anything is compiled."""
    probe = isinstance(run, probes.Run)
    flops = (
        run.flops if probe else build.step_flops(config, devices) / config.batch_size
    )
    return dict(
        recipe=config.recipe,
        topology=topology or "devices",
        device=devices[0].device_kind,
        chips=len(devices) // (chip.cores if chip else 1),
        devices=len(devices),
        hosts=len({device.process_index for device in devices}),
        mesh={axis: int(size) for axis, size in run.mesh.shape.items()},
        batch_size=config.batch_size,
        leanest_fsdp=leanest_fsdp(run),
        accum=config.accum,
        remat=config.vit.remat,
        frozen=probe,
        versions=versions(),
        hbm_bytes=memory_of(devices[0], topology, chip),
        model_flops_per_image=flops,
    )


def make_run(config, encoder, devices, say):
    """What is planned, `(config, build.Run or probes.Run)`; says what it leaves out."""
    if "tasks" in config:
        return probes.make_run(config, encoder, devices, say)
    if config.data.get("device_cache", False):
        say(NOT_COUNTED)
    return config, build.make_run(config, devices)


def memory_of(device, topology, chip):
    """Bytes that a program may use: what a device at hand says, else its kind's."""
    there = topology in ("", "devices") and memory.of_device(device)
    return there or (chip.hbm_bytes if chip else None)


def leanest_fsdp(run):
    """The `config.mesh.fsdp` with which a device holds the least of the parameters.

    Not the largest where an axis doesn't divide over it. Slices are apart: theirs is 1.
    """
    mesh, ways = run.mesh, partition.ways(run.mesh)
    state = run.program.state
    params = state[1] if isinstance(run, probes.Run) else state.params
    leaves = jax.tree_util.tree_leaves_with_path(params)

    def held(fsdp):
        sizes = {**mesh.shape, "data": ways // fsdp, "fsdp": fsdp}
        sized = types.SimpleNamespace(shape=sizes)
        total = 0
        for path, x in leaves:
            split = jax.tree.leaves(tuple(partition.spec(path, x.shape, sized)))
            total += x.size // math.prod(sizes[name] for name in split)
        return total

    if partition.far_apart(list(mesh.devices.flat)):
        return 1
    return min((n for n in range(1, ways + 1) if ways % n == 0), key=held)


def versions():
    """Versions of the packages that the figures depend on."""
    installed = {"jax": jax.__version__}
    for name in ("libtpu", "jax-cuda13-pjrt"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def compile_step(run, options=None):
    """`(compiled, None)`, or `(None, message)` if it doesn't fit into memory.

    `options` are the compiler's. Raises UserError for whatever else it refuses.
    """
    try:
        return memory.compile_step(run.program, options)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"the compiler refuses this step: {error}") from error


def measure_memory(config, run, compiled, refusal, figures):
    """Bytes of a chip: arguments, temporaries, outputs that aren't aliased, their sum.

    And what would fit where this doesn't: compiled for the devices at hand, else by
    proportion. `figures` is what the plan has so far.
    """
    need, has = memory.need_of(run.program, compiled, refusal), figures["hbm_bytes"]
    fits, advice = bool(compiled) and (has is None or need.total <= has), None
    limit = fit.ROOM * (has or need.total)
    if not fits and isinstance(run, probes.Run):
        advice = probes.advise(run, need, limit, config.batch_size, config.accum)
    elif not fits:
        seconds = (
            figures["compile_seconds"] if figures["topology"] == "devices" else None
        )
        measure = remedies.compiler(config, run, seconds)
        advice = remedies.advise(config, run, need, limit, measure)
        advice = advice and dict(flags=advice.flags, bytes=advice.bytes, how=advice.how)
    return dict(
        fits=fits,
        argument_bytes=need.arguments,
        temp_bytes=need.temporaries,
        output_bytes=need.outputs,
        code_bytes=need.code,
        total_bytes=need.total,
        refusal=refusal.splitlines()[0] if refusal else None,
        advice=advice,
    )


def read_buffers(module):
    """The largest arrays, and the state's arrays that aren't overwritten in place."""
    if not module:
        return dict(largest=[], not_donated=None)
    largest = buffers.arguments(module)[:LARGEST]
    largest += buffers.temporaries(module, LARGEST)
    return dict(largest=largest, not_donated=buffers.not_donated(module))
