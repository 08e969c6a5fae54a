"""Topologies by name: TPU slices, their chips' figures, and devices to compile for.

None of the devices need be there. Hosts with NVIDIA GPUs are named here, too; what is to
know of those is in `cards`.
"""

import dataclasses
import fnmatch
import importlib.metadata
import os
import re

import jax
from jax.experimental import topologies as jax_topologies

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.host import NO_CLOUD
from vit_ssl_jax.plan import cards

OLDEST_JAX = 0, 9, 2  # whose compilers and their options are known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Public figures of what jax calls one device of a TPU: a chip, of tpu7x half one."""

    name: str
    kind: str  # its `device_kind`
    cores: int  # devices a chip
    dimensions: int  # of the torus, so numbers in a slice's name
    peak_flops_per_cycle: int  # bfloat16, multiply and add count as two
    hertz: float
    hbm_bytes: int  # what the compiler lets a program use
    hbm_bytes_per_second: float
    link_bytes_per_second: float  # one ICI link, one direction
    dcn_bytes_per_second: float  # between slices, per device
    config: str  # libtpu's chip_config_name

    @property
    def hbm_bytes_per_cycle(self):
        """HBM bandwidth in bytes a cycle."""
        return self.hbm_bytes_per_second / self.hertz

    @property
    def peak_flops(self):
        """Peak bfloat16 FLOP/s."""
        return self.peak_flops_per_cycle * self.hertz


def _gib(amount):
    return int(amount * 2**30)


# Peak, HBM and ICI: https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} (ICI there
# is of all links of a chip and both directions; v4 and v5p have 6 links, others 4, tpu7x
# 6). Peak a cycle is MXUs x 2 x their area; the clock is peak over it. HBM is what the
# compiler of libtpu 0.0.42 names when it refuses a program, less than is sold. Network
# between slices: https://jax-ml.github.io/scaling-book/tpus.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            kind="TPU v4",
            cores=1,
            dimensions=3,
            peak_flops_per_cycle=262_144,
            hertz=1.05e9,
            hbm_bytes=_gib(30.75),
            hbm_bytes_per_second=1.2e12,
            link_bytes_per_second=50e9,
            dcn_bytes_per_second=6.25e9,
            config="megacore",  # both cores as one device, as on a TPU VM
        ),
        Chip(
            name="v5e",
            kind="TPU v5 lite",
            cores=1,
            dimensions=2,
            peak_flops_per_cycle=131_072,
            hertz=1.5e9,
            hbm_bytes=_gib(15.75),
            hbm_bytes_per_second=819e9,
            link_bytes_per_second=50e9,
            dcn_bytes_per_second=3.125e9,
            config="",
        ),
        Chip(
            name="v5p",
            kind="TPU v5",
            cores=1,
            dimensions=3,
            peak_flops_per_cycle=262_144,
            hertz=1.75e9,
            hbm_bytes=_gib(95.74),
            hbm_bytes_per_second=2.765e12,
            link_bytes_per_second=100e9,
            dcn_bytes_per_second=6.25e9,
            config="",
        ),
        Chip(
            name="v6e",
            kind="TPU v6 lite",
            cores=1,
            dimensions=2,
            peak_flops_per_cycle=524_288,
            hertz=1.75e9,
            hbm_bytes=_gib(31.25),
            hbm_bytes_per_second=1.64e12,
            link_bytes_per_second=100e9,
            dcn_bytes_per_second=12.5e9,
            config="",
        ),
        Chip(
            name="tpu7x",
            kind="TPU7x",
            cores=2,
            dimensions=3,
            peak_flops_per_cycle=524_288,
            hertz=2.2e9,
            hbm_bytes=_gib(94.75),
            hbm_bytes_per_second=3.69e12,
            link_bytes_per_second=100e9,
            dcn_bytes_per_second=6.25e9,
            config="",
        ),
    )
}
EXAMPLES = {
    "v4": "v4:2x2x1, v4:2x2x4",
    "v5e": "v5e:1x1, v5e:2x2, v5e:2x4, v5e:4x8, v5e:16x16",
    "v5p": "v5p:2x2x1, v5p:4x4x4",
    "v6e": "v6e:1x1, v6e:2x4, v6e:16x16",
    "tpu7x": "tpu7x:2x2x1",
}
NAME = re.compile(r"(?:(\d+)\*)?([a-z0-9-]+):(\d+(?:x\d+)*)")
# No device is held, so several processes may compile at once.
ENVIRONMENT = NO_CLOUD | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}


def get_devices(name, say=print):
    """The devices of a topology and their `Chip`, `cards.Card` or None.

    `v5e:4x8` is a slice, `2*v5e:4x4` two; `h100:8` a host with eight cards, `2*h100:8` two
    hosts. "devices" or "" are those at hand, None where no table has their kind. The others
    compile and never run. Raises UserError where the name isn't one, the compiler (libtpu,
    the CUDA plugin) is missing or refuses it; of a libtpu that isn't jax's own `say` warns.
    """
    if name in ("", "devices"):
        devices = jax.devices()
        return devices, chip_of(devices[0].device_kind)
    if jax.__version_info__ < OLDEST_JAX:
        raise UserError(
            f"a plan for devices elsewhere needs jax {'.'.join(map(str, OLDEST_JAX))} or "
            f"newer, not {jax.__version__}: pip install -U jax, or plan on another machine"
        )
    count, chip, layout = parse(name)
    if isinstance(chip, cards.Card):
        return cards.get_devices(chip, count, int(layout)), chip
    return slice_devices(name, count, chip, layout, say), chip


def slice_devices(name, slices, chip, layout, say):
    """The devices of `slices` slices of `layout`, `AxB[xC]` chips each."""
    check_libtpu(say)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    options = {"chip_config_name": chip.config} if chip.config else {}
    if set(layout.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
        layout = "x".join(["1"] * chip.dimensions)
    try:
        topology = jax_topologies.get_topology_desc(
            topology_name=f"{chip.name}:{layout}",
            platform="tpu",
            num_slices=slices,
            **options,
        )
    except Exception as error:  # of the plugin: its class varies between versions
        raise UserError(
            f"--topology: the compiler doesn't know {name}: "
            f"{str(error).splitlines()[0]}; {valid_names()}"
        ) from error
    return topology.devices


def parse(name):
    """Parses `[N*]NAME:SIZES -> N, Chip or Card, "SIZES"`; raises UserError.

    A slice's sizes are `AxB[xC]`, those of a host one number of cards.
    """
    match = NAME.fullmatch(name)
    kinds = CHIPS | cards.CARDS
    if not match or match[2] not in kinds:
        raise UserError(f"--topology: {name!r} is no topology; {valid_names()}")
    chip, layout = kinds[match[2]], match[3]
    sizes = [int(size) for size in layout.split("x")]
    if len(sizes) != chip.dimensions or 0 in sizes or match[1] == "0":
        numbers = {1: "one number of cards a host", 2: "2 sizes", 3: "3 sizes"}
        raise UserError(
            f"--topology: {name!r}: {chip.name} has {numbers[chip.dimensions]}, at least "
            f"1; {valid_names()}"
        )
    return int(match[1] or 1), chip, layout


def options(name, chip):
    """Options of the compiler for a topology: None but for GPUs that aren't there."""
    planned = name not in ("", "devices") and isinstance(chip, cards.Card)
    return cards.OPTIONS if planned else None


def valid_names():
    """Says for messages what names a topology can have."""
    return (
        f"valid are slices of TPUs ({'; '.join(EXAMPLES.values())} and the like, sizes "
        f"are even; 2*v5e:4x4 are two), cards ({', '.join(cards.CARDS)}, with a number: "
        "h100:8 is a host with eight, 2*h100:8 two hosts), and `devices` for those at hand"
    )


def chip_of(kind):
    """The Chip or Card of a `device_kind`, None where neither table has it."""
    every = [*CHIPS.values(), *cards.CARDS.values()]
    return next((chip for chip in every if chip.kind == kind), None)


def check_libtpu(say=print):
    """Raises UserError without libtpu; warns of one that jax didn't ask for."""
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "--topology: compiling for a TPU slice needs libtpu, which isn't "
            "installed: pip install 'jax[tpu]' (no TPU is needed)"
        ) from None
    wanted = wanted_libtpu()
    if wanted and not fnmatch.fnmatch(version, wanted):
        say(
            f"warning: libtpu {version} isn't the {wanted} of jax {jax.__version__}: "
            "memory and cycles will differ; pip install 'jax[tpu]' brings the right one"
        )


def wanted_libtpu():
    """The version of libtpu that this jax asks for, e.g. "0.0.42.*"; "": any."""
    for line in importlib.metadata.requires("jax") or ():
        if match := re.match(r"libtpu\s*==\s*([\w.*]+)", line):
            return match[1]
    return ""
