"""The platform is that of the mesh in use, else jax's own."""

import dataclasses

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from vit_ssl_jax.models import device


def test_platform():
    assert device.platform() == jax.default_backend()
    values = dict(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    known = {
        field.name for field in dataclasses.fields(AbstractDevice)
    }  # grew with jax
    tpu = AbstractDevice(**{name: values[name] for name in known})
    mesh = AbstractMesh((2,), ("data",), abstract_device=tpu)
    with jax.sharding.use_abstract_mesh(mesh):
        assert device.platform() == "tpu"
    assert device.platform() == jax.default_backend()
