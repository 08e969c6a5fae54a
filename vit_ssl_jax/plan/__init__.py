"""What a run will take on a TPU slice, or on the devices at hand, before it is started.

The very step that trains is compiled for those devices, which for a slice needs none of
them, and the compiled program is read. `python -m vit_ssl_jax.plan` is the command.
"""

import importlib.metadata
import math
import os
import re
import time
import types
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from vit_ssl_jax import build, partition, step
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import (
    buffers,
    collectives,
    contracts,
    hlo,
    parts,
    topologies,
    validity,
)

LARGEST = 12  # arrays that are named
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plan(
    config: ConfigDict,
    topology: str = "devices",
    say: Callable[[str], None] = print,
) -> dict:
    """Compiles the step of `config` for `topology` and reads it: a dict of plain values.

        plan(recipes.load("mae_vitl.py", batch_size=512), "v5e:4x8")["total_bytes"]

    `topology` is a slice (`v5e:4x8`, `2*v5e:4x4`) or "devices", those at hand. Bytes are
    one chip's; cycles are the compiler's estimates, None where it gives none (CPU, GPU);
    a program that the compiler refuses for want of memory is a plan that doesn't fit,
    with None for what isn't known then. Raises UserError before compiling where the
    slice isn't one, or config, mesh and batch don't go with it. `say` hears warnings.
    """
    config = config.copy_and_resolve_references()
    devices, chip = topologies.get_devices(topology, say)
    run = build.make_run(config, devices)
    found = dict(
        recipe=config.recipe,
        topology=topology or "devices",
        device=devices[0].device_kind,
        chips=len(devices) // (chip.cores if chip else 1),
        devices=len(devices),
        mesh={axis: int(size) for axis, size in run.mesh.shape.items()},
        batch_size=config.batch_size,
        leanest_fsdp=leanest_fsdp(run),
        accum=config.accum,
        remat=config.vit.remat,
        versions=versions(),
        hbm_bytes=chip.hbm_bytes if chip else memory_of(devices[0]),
        model_flops_per_image=build.step_flops(config, devices) / config.batch_size,
        valid_share=validity.valid_share(run, tuple(config.data.size)),
    )
    start, module, costs, breaches = time.perf_counter(), None, None, None
    compiled, refusal = compile_step(run)
    found["compile_seconds"] = round(time.perf_counter() - start, 1)
    if compiled:
        text = compiled.as_text()
        module = hlo.parse(text)
        costs = kernel_costs(text, module, chip, say)
    if compiled and chip:
        kept = dict(dtype=config.vit.dtype, slices=partition.count_slices(devices))
        breaches = contracts.violations(text, **kept)
    found["violations"] = breaches
    found |= measure_memory(run, compiled, refusal, found["hbm_bytes"])
    found |= read_buffers(module)
    found |= read_cycles(module, costs, chip, found)
    found |= read_communication(module, costs, chip, found, run.mesh)
    return found | speed(found, chip, config, run.steps)


def leanest_fsdp(run):
    """The `config.mesh.fsdp` with which a device holds the least of the parameters.

    Not the largest where an axis doesn't divide over it. Slices are apart: theirs is 1.
    """
    mesh, ways = run.mesh, partition.ways(run.mesh)
    leaves = jax.tree_util.tree_leaves_with_path(run.program.state.params)

    def held(fsdp):
        sizes = {**mesh.shape, "data": ways // fsdp, "fsdp": fsdp}
        sized = types.SimpleNamespace(shape=sizes)
        total = 0
        for path, x in leaves:
            split = jax.tree.leaves(tuple(partition.spec(path, x.shape, sized)))
            total += x.size // math.prod(sizes[name] for name in split)
        return total

    if partition.count_slices(list(mesh.devices.flat)) > 1:
        return 1
    return min((n for n in range(1, ways + 1) if ways % n == 0), key=held)


def versions():
    """Of what the figures depend on."""
    found = {"jax": jax.__version__}
    try:
        found["libtpu"] = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        found["libtpu"] = None
    return found


def memory_of(device):
    """Bytes of a device at hand: a GPU's, or its share of the machine's; None: unknown."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total // jax.local_device_count()
    return None


def compile_step(run):
    """`(compiled, None)`, or `(None, message)` if it doesn't fit into memory.

    Raises UserError for whatever else the compiler refuses.
    """
    lowered = step.lower(run.program)
    try:
        return lowered.compile(), None
    except jax.errors.JaxRuntimeError as error:
        if refused_bytes(str(error)):
            return None, str(error)
        raise UserError(f"the compiler refuses this step: {error}") from error


def refused_bytes(message):
    """Bytes of temporaries in a compiler's refusal for want of HBM; 0: another error."""
    found = re.search(
        r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM", message
    ) or re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


def kernel_costs(text, module, chip, say):
    """`{instruction: plan.kernels.Cost}` of the custom kernels of a program for TPUs."""
    if not chip or hlo.KERNEL not in text:
        return {}
    from vit_ssl_jax.plan import kernels  # starts compilations of its own

    return kernels.estimate(text, chip, say)


def measure_memory(run, compiled, refusal, hbm_bytes):
    """Bytes of a chip: arguments, temporaries, outputs that aren't aliased, their sum."""
    if compiled:
        memory = compiled.memory_analysis()
        arguments, temporaries = (
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
        )
        outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
        code = memory.generated_code_size_in_bytes
    else:
        leaves = jax.tree.leaves((run.program.state, run.program.batch))
        arguments = sum(
            leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
            for leaf in leaves
        )
        temporaries, outputs, code = refused_bytes(refusal), 0, None
    total = arguments + temporaries + outputs
    fits = bool(compiled) and (hbm_bytes is None or total <= hbm_bytes)
    return dict(
        fits=fits,
        argument_bytes=arguments,
        temp_bytes=temporaries,
        output_bytes=outputs,
        code_bytes=code,
        total_bytes=total,
        refusal=refusal.splitlines()[0] if refusal else None,
    )


def read_buffers(module):
    """The largest arrays, and the state's arrays that aren't overwritten in place."""
    if not module:
        return dict(largest=[], not_donated=None)
    largest = buffers.arguments(module)[:LARGEST]
    largest += buffers.temporaries(module, LARGEST)
    return dict(largest=largest, not_donated=buffers.not_donated(module))


def read_cycles(module, costs, chip, found):
    """Cycles of a chip an image, in all and by part, and the share of peak they mean."""
    unknown = dict.fromkeys(("cycles_per_step", "cycles_per_image", "peak_fraction"))
    if not module or not chip:
        return unknown | dict(parts=None, kernels=[], uncosted=None, unknown_loops=[])
    cycles = {name: cost.cycles for name, cost in costs.items()}
    by_part = parts.cycles_by_part(module, cycles)
    total, images = sum(by_part.values()), found["batch_size"] / found["devices"]
    return dict(
        cycles_per_step=total,
        cycles_per_image=total / images,
        peak_fraction=found["model_flops_per_image"]
        / (total / images * chip.peak_flops_per_cycle),
        parts={part: value / images for part, value in by_part.items()},
        kernels=parts.kernel_rows(module, costs),
        uncosted=parts.uncosted(module, cycles),
        unknown_loops=hlo.unknown_loops(module),
    )


def read_communication(module, costs, chip, found, mesh):
    """Collectives with counts a step, and what they would cost beside the cycles."""
    if not module:
        return dict(collectives=None, communication=None)
    slices = [getattr(device, "slice_index", 0) for device in mesh.devices.flat]
    cost = parts.make_cost({name: c.cycles for name, c in costs.items()})
    rows = collectives.find(module, found["mesh"], cost, slices)
    total = found["cycles_per_step"]
    return dict(
        collectives=collectives.merge(rows),
        communication=collectives.estimate(rows, chip, total) if chip else None,
    )


def speed(found, chip, config, steps):
    """What the estimates would mean: seconds a step, images a second, hours."""
    if found["cycles_per_step"] is None:
        keys = ("seconds_per_step", "images_per_second", "epoch_hours", "run_hours")
        return dict.fromkeys(keys)
    cycles = found["cycles_per_step"] + found["communication"]["exposed_cycles"]
    seconds = cycles / chip.hertz
    images = config.batch_size / seconds
    return dict(
        seconds_per_step=seconds,
        images_per_second=images,
        epoch_hours=config.data.num_examples / images / 3600,
        run_hours=steps * seconds / 3600,
    )
