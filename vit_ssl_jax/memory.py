"""Memory: what a device has, what a compiled step needs of it, and errors for want of it."""

import dataclasses
import math
import os
import pathlib
import re

import jax

from vit_ssl_jax import step

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
CGROUPS = pathlib.Path("/sys/fs/cgroup")
MINE = pathlib.Path("/proc/self/cgroup")
# jax takes this share of a GPU's memory unless told otherwise, and can take the other.
POOL, MOST_OF_POOL = 0.75, 0.95
POOL_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes of one device that a step takes."""

    arguments: int  # state and batch
    temporaries: int
    outputs: int = 0  # that don't take the place of arguments
    code: int | None = None  # not in the sum; None: not known

    @property
    def total(self):
        """Bytes of all but the code."""
        return self.arguments + self.temporaries + self.outputs


def of_device(device):
    """Bytes of a device at hand: a GPU's, or its share of the machine's; None: unknown."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu":
        return of_machine() // jax.local_device_count()
    return None


def of_machine(mine=MINE, cgroups=CGROUPS):
    """Bytes of RAM that this process may use: the machine's, or its control group's."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([ram, *group_limits(mine, cgroups)])


def group_limits(mine, cgroups):
    """Limits in bytes of a process's control group and of those around it.

    `mine` is a `/proc/PID/cgroup`, `cgroups` where the groups are. Of version 2 it is
    `memory.max`, of version 1 `memory/.../memory.limit_in_bytes`; "max" is none.
    """
    lines = mine.read_text().splitlines() if mine.exists() else []
    for line in [*lines, "0::/", "0:memory:/"]:
        _, controllers, path = line.split(":", 2)
        root, name = cgroups, "memory.max"
        if "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        elif controllers:
            continue
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            file = place / name
            if place.is_relative_to(root) and file.is_file():
                text = file.read_text().strip()
                if text.isdecimal():
                    yield int(text)


def free_now():
    """Bytes of the machine's RAM that nothing uses; None where it doesn't say."""
    file = pathlib.Path("/proc/meminfo")
    match = re.search(
        r"MemAvailable:\s*(\d+) kB", file.read_text() if file.exists() else ""
    )
    return int(match[1]) * 1024 if match else None


def compile_step(program, options=None):
    """Compiles the step of a `step.Program` for its shapes; `options` of the compiler.

    `(compiled, None)`, or `(None, message)` where the compiler refuses it for want of
    memory. Raises what else the compiler raises.
    """
    lowered = step.lower(program)
    try:
        return lowered.compile(compiler_options=options), None
    except jax.errors.JaxRuntimeError as error:
        if refused_bytes(str(error)):
            return None, str(error)
        raise


def refused_bytes(message):
    """Bytes of temporaries in a compiler's refusal for want of memory; 0: another error."""
    match = (
        re.search(
            r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM", message
        )
        or re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
        or re.search(
            r"RESOURCE_EXHAUSTED: .*allocat\w+ ([\d.]+) ?([KMGT]?)i?[Bb]", message
        )
    )
    return int(float(match[1]) * UNITS[match[2]]) if match else 0


def argument_bytes(program):
    """Bytes of one device's shards of the state and the batch."""
    return shard_bytes((program.state, program.batch))


def shard_bytes(tree):
    """Bytes of one device's shards of a tree of shapes with shardings."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )


def need_of(program, compiled, refusal):
    """The `Need` of a `step.Program`, from what `compile_step` returned for it."""
    if not compiled:
        return Need(argument_bytes(program), refused_bytes(refusal))
    memory = compiled.memory_analysis()
    return Need(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.generated_code_size_in_bytes,
    )


def size(count):
    """Bytes with three digits: "159 GiB", "14.8 GiB", "731 MiB"."""
    return _in_unit(count, *_unit(count))


def share(count, has, device):
    """Bytes that are needed beside what there is: "159 GiB of 23.5 (CPU memory)".

    `count` and `has` are bytes of one device, `has` may be None: unknown. CPU devices
    are one machine together.
    """
    where, times = f"{device.device_kind} memory", 1
    if device.platform == "cpu":
        where, times = "CPU memory", jax.local_device_count()
    if has is None:
        return f"{size(times * count)} ({where})"
    unit, name = _unit(times * has)
    end = _in_unit(times * has, unit, name).removesuffix(f" {name}")
    return f"{_in_unit(times * count, unit, name)} of {end} ({where})"


def _unit(count):
    return (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")


def _in_unit(count, unit, name):
    value = count / unit
    return f"{value:.3g} {name}" if value < 1000 else f"{value:.0f} {name}"


def pool_hint(device, has, environment=os.environ):
    """What a GPU has beyond jax's pool of `has` bytes, as the end of a sentence."""
    if device.platform != "gpu" or not has:
        return ""
    given = next((environment[n] for n in POOL_VARIABLES if environment.get(n)), POOL)
    share = float(given)
    if share >= MOST_OF_POOL:
        return ""
    most = size(has / share * MOST_OF_POOL)
    return (
        f"; jax takes {100 * share:.0f} % of a GPU, and with "
        f"XLA_CLIENT_MEM_FRACTION={MOST_OF_POOL} in the environment {most}"
    )
