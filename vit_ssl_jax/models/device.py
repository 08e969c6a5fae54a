"""The kind of device that a model is being traced for."""

import jax


def platform():
    """Kind of the mesh in use, else of jax's default devices: `cpu`, `gpu` or `tpu`."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    kind = device.device_kind.lower()  # jax before 0.10.1 has no device.platform
    return kind[:3] if kind.startswith(("cpu", "tpu")) else "gpu"


def capability():
    """Compute capability of the NVIDIA GPUs at hand, `(9, 0)`; others': `(0,)`.

    A card that a model is traced for and that isn't at hand is only planned with: those
    are all new enough, `(8, 0)`.
    """
    meant, local = jax.sharding.get_abstract_mesh().abstract_device, jax.local_devices()
    if jax.default_backend() != "gpu" or (
        meant and meant.device_kind != local[0].device_kind
    ):
        return 8, 0
    numbers = str(getattr(local[0], "compute_capability", "")).split(".")
    return tuple(map(int, numbers)) if all(n.isdecimal() for n in numbers) else (0,)
