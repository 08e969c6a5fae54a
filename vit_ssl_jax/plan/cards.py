"""NVIDIA GPUs by name: their figures, and devices to compile for without a GPU.

The compiler comes in two packages, jax-cuda13-pjrt and jax-cuda13-plugin, and is told of
the card by a text (a `stream_executor.GpuTargetConfigProto`). It needs no driver.
"""

import dataclasses

from jax.experimental import topologies as jax_topologies

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.host import GPU_MEMORY
from vit_ssl_jax.plan.gpu_compiler import CUDNN, check_plugin, tell_cudnn

# XLA's own matmuls can't choose their tiles without a card: cuBLAS does them all.
OPTIONS = {"xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Public figures of a card, and what the compiler asks for beside them."""

    name: str
    kind: str  # its `device_kind`
    capability: str  # compute capability, "9.0"
    extension: str  # of its instructions: "NONE" or "ACCELERATED_FEATURES"
    peak_flops: float  # bfloat16, dense, multiply and add count as two
    memory_bytes: int
    hbm_bytes_per_second: float
    link_bytes_per_second: float  # to the other cards of its host, one direction
    dcn_bytes_per_second: float  # its share of the network between hosts, one direction
    l2_bytes: int
    processors: int  # streaming multiprocessors
    fpus: int  # a processor
    threads: int  # a processor
    shared_bytes: int  # a processor
    shared_bytes_block: int  # a block that asks for it
    clock: float  # GHz

    cores = 1  # devices a card
    dimensions = 1  # numbers in the name of a host

    @property
    def hbm_bytes(self):
        """What jax takes of the memory (`host.GPU_MEMORY`)."""
        return int(GPU_MEMORY * self.memory_bytes)


_RTX = dict(link_bytes_per_second=32e9, dcn_bytes_per_second=3.125e9, fpus=128)
_RTX |= dict(threads=1536, shared_bytes=102400, shared_bytes_block=101376)
_AMPERE = dict(
    capability="8.0", extension="NONE", peak_flops=312e12, link_bytes_per_second=300e9
)
_AMPERE |= dict(dcn_bytes_per_second=25e9, l2_bytes=41943040, processors=108, fpus=64)
_AMPERE |= dict(
    threads=2048, shared_bytes=167936, shared_bytes_block=166912, clock=1.41
)
_HOPPER = dict(capability="9.0", extension="ACCELERATED_FEATURES", peak_flops=989e12)
_HOPPER |= dict(link_bytes_per_second=450e9, dcn_bytes_per_second=50e9)
_HOPPER |= dict(l2_bytes=52428800, processors=132, fpus=128, threads=2048)
_HOPPER |= dict(shared_bytes=233472, shared_bytes_block=232448, clock=1.98)
# What the compiler asks for: openxla/xla, xla/backends/gpu/target_config/specs. Peaks and
# links: NVIDIA's data sheets (NVLink; RTX: PCIe 4, for A6000's NVLink joins but two); RTX 4090:
# the white paper of its architecture. Networks: those of DGX A100 (200 Gb/s a card), DGX
# H100 and newer (400 Gb/s); RTX: an assumed 25 Gb/s.
CARDS = {
    card.name: card
    for card in (
        Card(
            name="rtx4090",
            kind="NVIDIA GeForce RTX 4090",
            capability="8.9",
            extension="NONE",
            peak_flops=165.2e12,
            memory_bytes=25393364992,
            hbm_bytes_per_second=1008e9,
            l2_bytes=75497472,
            processors=128,
            clock=2.52,
            **_RTX,
        ),
        Card(
            name="a6000",
            kind="NVIDIA RTX A6000",
            capability="8.6",
            extension="NONE",
            peak_flops=155e12,
            memory_bytes=51041271808,
            hbm_bytes_per_second=768.096e9,
            l2_bytes=6291456,
            processors=84,
            clock=1.8,
            **_RTX,
        ),
        Card(
            name="a100-40",
            kind="NVIDIA A100-SXM4-40GB",
            memory_bytes=42331013120,
            hbm_bytes_per_second=1555.2e9,
            **_AMPERE,
        ),
        Card(
            name="a100-80",
            kind="NVIDIA A100-SXM4-80GB",
            memory_bytes=85100068864,
            hbm_bytes_per_second=2039.04e9,
            **_AMPERE,
        ),
        Card(
            name="h100",
            kind="NVIDIA H100 80GB HBM3",
            memory_bytes=84942979072,
            hbm_bytes_per_second=3352.32e9,
            **_HOPPER,
        ),
        Card(
            name="h200",
            kind="NVIDIA H200",
            memory_bytes=151397597184,
            hbm_bytes_per_second=4800e9,
            **_HOPPER,
        ),
        Card(
            name="b200",
            kind="NVIDIA B200",
            capability="10.0",
            extension="ACCELERATED_FEATURES",
            peak_flops=2250e12,
            memory_bytes=191514411008,
            hbm_bytes_per_second=7672.32e9,
            link_bytes_per_second=900e9,
            dcn_bytes_per_second=50e9,
            l2_bytes=132644864,
            processors=148,
            fpus=128,
            threads=2048,
            shared_bytes=233472,
            shared_bytes_block=232448,
            clock=1.965,
        ),
    )
}


def get_devices(card, hosts, each):
    """Devices of `hosts` hosts with `each` cards, to compile for and never to run on.

    Raises UserError where the compiler for GPUs isn't installed or isn't jax's own.
    """
    check_plugin()
    tell_cudnn()
    try:
        topology = jax_topologies.get_topology_desc(
            topology_name="",
            platform="cuda",
            topology=f"1x{hosts}x{each}",  # slices, hosts, cards of a host
            target_config=target(card),
        )
    except Exception as error:  # of the plugin: its class varies between versions
        raise UserError(
            f"--topology: the compiler refuses {card.name}: {str(error).splitlines()[0]}"
        ) from error
    return topology.devices


def target(card):
    """What the compiler is told of a card: text of a GpuTargetConfigProto."""
    major, minor = card.capability.split(".")
    version = ".".join(map(str, CUDNN))
    numbers = dict(
        threads_per_block_limit=1024,
        threads_per_warp=32,
        shared_memory_per_block=49152,
        shared_memory_per_core=card.shared_bytes,
        shared_memory_per_block_optin=card.shared_bytes_block,
        threads_per_core_limit=card.threads,
        core_count=card.processors,
        fpus_per_core=card.fpus,
        block_dim_limit_x=2**31 - 1,
        block_dim_limit_y=65535,
        block_dim_limit_z=65535,
        thread_dim_limit_x=1024,
        thread_dim_limit_y=1024,
        thread_dim_limit_z=64,
        registers_per_core_limit=65536,
        registers_per_block_limit=65536,
        memory_bandwidth=int(card.hbm_bytes_per_second),
        l2_cache_size=card.l2_bytes,
        clock_rate_ghz=card.clock,
        device_memory_size=card.memory_bytes,
        device_address_bits=64,
    )
    texts = dict(
        name=card.kind, device_vendor="NVIDIA Corporation", dnn_version=version
    )
    texts |= dict(driver_version="13.0.0", runtime_version="13.0.0")
    texts |= dict(compile_time_toolkit_version="13.0.0")
    lines = [f"  {key}: {value}" for key, value in numbers.items()]
    lines += [f'  {key}: "{value}"' for key, value in texts.items()]
    lines.append(
        f"  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: "
        f"{card.extension} }}"
    )
    dnn = " ".join(f"{k}: {v}" for k, v in zip(("major", "minor", "patch"), CUDNN))
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "}",
            'platform_name: "CUDA"',
            f"dnn_version_info {{ {dnn} }}",
            f'device_description_str: "{card.kind}"',
        ]
    )
