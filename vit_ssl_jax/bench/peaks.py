"""Peak rates of accelerators, for the share of peak that a step reaches."""

from vit_ssl_jax.plan.topologies import CHIPS

# Dense bfloat16 FLOP/s with float32 sums by the makers' data sheets, by the start of
# jax's `device_kind`; the longest name that fits counts.
GPUS = {
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A30": 165e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
}


def peak(kind, dtype):
    """Peak FLOP/s of a device, or None where it isn't known.

    `kind` is jax's `device_kind`, `dtype` that of the matmuls: only bfloat16 has one.
    """
    if dtype != "bfloat16":
        return None
    for chip in CHIPS.values():
        if chip.kind == kind:
            return chip.peak_flops
    fits = [
        name
        for name in GPUS
        if kind == name or kind.startswith((f"{name} ", f"{name}-"))
    ]
    return GPUS[max(fits, key=len)] if fits else None
