"""For what kind of device a model is being traced."""

import jax


def platform():
    """`cpu`, `gpu` or `tpu`: of the mesh in use, else of jax's default devices."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()
