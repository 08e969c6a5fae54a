"""Recipes for devices that aren't there: a TPU slice and a host with GPUs."""

import pytest

from vit_ssl_jax.plan import topologies

SLICE, HOST = "v5e:2x2", "h100:4"
NEEDED = {SLICE: "libtpu", HOST: "jax_cuda13_plugin"}


@pytest.fixture(scope="module", params=[SLICE, HOST])
def target(request):
    """`(name, devices, options of the compiler)` of each."""
    pytest.importorskip(NEEDED[request.param])
    devices, chip = topologies.get_devices(request.param)
    return request.param, devices, topologies.options(request.param, chip)
