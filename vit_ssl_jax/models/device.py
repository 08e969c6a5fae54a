"""For what kind of device a model is being traced."""

import jax


def platform():
    """`cpu`, `gpu` or `tpu`: of the mesh in use, else of jax's default devices."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    kind = device.device_kind.lower()  # jax before 0.10.1 has no device.platform
    return kind[:3] if kind.startswith(("cpu", "tpu")) else "gpu"
