"""The cost of Pallas kernels, which the TPU compiler's cost model has no figure for.

Every custom kernel of a program is compiled once more, alone, with the compiler's dumps
of machine code, which `plan.kernel_cost.walk` walks through. A figure that the kernel
declares of itself (`pl.CostEstimate`) is never used.
"""

import base64
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.kernels import calls
from vit_ssl_jax.plan.kernel_cost import alone, code, walk
from vit_ssl_jax.plan.program import hlo
from vit_ssl_jax.xla import cache

FORMAT = 5  # of what is cached; counts up when a figure's meaning changes
GRANULES = {"v4": 512}  # bytes, where they aren't walk.GRANULE
FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one execution of a kernel takes."""

    name: str  # the kernel's
    cycles: int  # the largest of bundles, bytes at HBM's rate, matmuls at peak rate
    bundles: int  # executed
    bytes: int  # between HBM and the chip's memory
    matmul_flops: int  # of the busiest core's matrix units, padding with it, x cores
    grid_steps: int
    units: dict  # unit of the core -> share of its slots that is used, 0 to 1
    spills: int  # registers stored to and filled from VMEM, executed


def estimate(hlo_text, chip, log=None):
    """The Cost of every Pallas kernel of an optimised program: `{instruction: Cost}`.

    Kernels are compiled for one chip of that kind (`topologies.Chip`), equal ones once,
    and remembered in the user's cache. `log(text)` hears of each compilation. Raises
    UserError where a kernel doesn't compile alone or its loops aren't static.
    """
    jobs = {}
    for items in hlo.parse(hlo_text).computations.values():
        types = {item.name: item.arrays for item in items}
        for item in items:
            if item.target == alone.TARGET:
                jobs[item.name] = make_job(item, types, chip)
    return {name: price(name, job, chip, log) for name, job in jobs.items()}


def make_job(item, types, chip):
    """All that decides a kernel's code, as JSON: config, arrays and where they live."""
    config = json.loads(item.attributes.partition("backend_config=")[2])
    config = {
        key: config[key]
        for key in ("custom_call_config", "scoped_memory_configs", "flag_configs")
        if config.get(key)
    }
    operands = [array for name in item.inputs for array in types[name]]
    results, custom = item.arrays, config["custom_call_config"]
    custom["input_memory_space_colors"] = [
        {"operand_index": i, "color": array.space} for i, array in enumerate(operands)
    ]
    shared = [pair for pair in find_aliases(item) if results[pair[1]].space == 1]
    own = [a for i, a in enumerate(results) if i not in {pair[1] for pair in shared}]
    on_chip = sum(array.bytes for array in (*operands, *own) if array.space == 1)
    for memory in config.get("scoped_memory_configs", []):  # beside those arrays
        if on_chip and int(memory["memory_space"]) == 1:
            memory["size"] = str(min(int(memory["size"]), calls.VMEM - on_chip))
    several = len(results) > 1
    custom["output_memory_space_colors"] = [
        {"color": array.space, **({"shape_index": [i]} if several else {})}
        for i, array in enumerate(results)
    ]
    job = {
        "chip": chip.name,
        "config": config,
        "operands": [[a.dtype, list(a.shape), a.layout] for a in operands],
        "results": [[a.dtype, list(a.shape), a.layout] for a in results],
    }
    return job | ({"aliases": shared} if shared else {})


def find_aliases(item):
    """Pairs `[[operand, result]]` of an instruction that share memory."""
    text = re.search(r"output_to_operand_aliasing=\{(.*?\))\}", item.attributes)
    pairs = re.findall(r"\{(\d*)\}: \((\d+),", text[1] if text else "")
    return [[int(operand), int(result or 0)] for result, operand in pairs]


def price(name, job, chip, log):
    """Finds a job's Cost, in the cache or by compiling it."""
    title = re.sub(r"\.\d+$", "", name)  # what `pallas_call` was given
    versions = [importlib.metadata.version(p) for p in ("jax", "libtpu")]
    content = json.dumps([FORMAT, versions, job], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = cache.cache_folder("kernels") / f"{digest}.json"
    if path.exists():
        figures = json.loads(path.read_text())
    else:
        if log:
            log(f"compiling the kernel {title} alone")
        figures = measure(title, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(figures))
        part.replace(path)
    limits = (
        figures["bundles"],
        figures["bytes"] / chip.hbm_bytes_per_cycle,
        # Matmuls may issue faster than they run.
        figures["matmul_flops"] / chip.peak_flops_per_cycle,
    )
    cycles = math.ceil(max(limits))
    return Cost(name=title, cycles=cycles, grid_steps=grid_steps(job), **figures)


def measure(title, job):
    """The figures of a Cost that depend on the job alone, by a process that compiles it."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "job.json").write_text(json.dumps(job))
        flags = FLAGS.format(folder / "dump")
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LIBTPU_INIT_ARGS": f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}",
        }
        command = [sys.executable, "-m", alone.__name__, str(folder / "job.json")]
        done = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(
                f"the kernel {title} doesn't compile alone, so its cost can't be known: "
                f"{done.stderr.strip()[-2000:]}"
            )
        try:
            text = read_dump(folder / "dump", "final_bundles")
            # On v4 and v5p two cores share a kernel, or one waits for the other.
            cores = range(2 if code.CORE in text else 1)
            granule = GRANULES.get(job["chip"], walk.GRANULE)
            walks = [walk.walk(text, core, granule) for core in cores]
        except walk.Unknown as error:
            raise UserError(f"the cost of the kernel {title}: {error}") from error
        busiest = max(walks, key=lambda walk: walk.bundles)
        use = read_dump(folder / "dump", "final_hlo-static-per-bundle-utilization")
        units, spills = utilization(use, busiest.counts)
    return dict(
        bundles=busiest.bundles,
        bytes=sum(walk.bytes for walk in walks),
        matmul_flops=max(walk.matmul_flops for walk in walks) * len(walks),
        units=units,
        spills=spills,
    )


def read_dump(folder, stage):
    """The text of the kernel's dump of a stage; raises UserError if it isn't there."""
    files = [
        path
        for path in folder.glob(f"*ffi_call*-{stage}.txt")
        if "schedule-analysis" not in path.name
    ]
    if len(files) != 1:
        raise UserError(f"libtpu left {len(files)} files {stage} of a kernel, not one")
    return files[0].read_text()


def utilization(text, counts):
    """Shares of the units' slots used, and spills executed: `{unit: share}, int`.

    The text has the units' slots a bundle, then a row of used slots for every bundle.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("==")]
    units = [unit.strip() for unit in lines[0].split(",")]
    slots = [int(n) for n in lines[1].split()]
    used = np.array([[int(n) for n in line.split()] for line in lines[2:]])
    if len(used) != len(counts):
        raise UserError(
            f"libtpu lists {len(used)} bundles' utilization of {len(counts)} bundles"
        )
    total = dict(zip(units, (counts @ used).tolist()))
    spills = sum(n for unit, n in total.items() if ":" in unit)
    shares = {
        unit: round(total[unit] / (n * int(counts.sum())), 4)
        for unit, n in zip(units, slots)
        if ":" not in unit
    }
    return shares, spills


def module_text(item):
    """The Mosaic module of a kernel's instruction as text."""
    config = json.loads(item.attributes.partition("backend_config=")[2])
    return str(kernel_module(config))


def kernel_module(config):
    """The Mosaic module of a kernel with this backend_config, as jaxlib parses it."""
    from jax.experimental.mosaic.dialects import tpu
    from jax.extend.mlir import ir

    body = base64.b64decode(config["custom_call_config"]["body"])
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        tpu.register_dialect(context)
        return ir.Module.parse(body)


def grid_steps(job):
    """How often the kernel's body runs: the product of its grid."""
    attributes = kernel_module(job["config"]).body.operations[0].attributes
    if "iteration_bounds" not in attributes:
        return 1
    return math.prod(attributes["iteration_bounds"])
