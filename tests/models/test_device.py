"""The platform is that of the mesh in use, else jax's own."""

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from vit_ssl_jax.models import device


def test_platform():
    assert device.platform() == jax.default_backend()
    tpu = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = AbstractMesh((2,), ("data",), abstract_device=tpu)
    with jax.sharding.use_abstract_mesh(mesh):
        assert device.platform() == "tpu"
    assert device.platform() == jax.default_backend()
