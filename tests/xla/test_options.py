"""What the TPU compiler is told: something where chips run kernels, else nothing."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vit_ssl_jax.xla import options

X = jax.ShapeDtypeStruct((8, 128), jnp.float32)


def add_one(x, mebibytes=None):
    """By a kernel that asks for so much of VMEM."""

    def kernel(x, out):
        out[...] = x[...] + 1

    params = mebibytes and pltpu.CompilerParams(vmem_limit_bytes=mebibytes << 20)
    return pl.pallas_call(kernel, out_shape=X, compiler_params=params)(x)


def choose(function, platform="tpu", devices=4, kind="TPU v5"):
    """For so many devices; nothing is compiled."""
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    mesh = types.SimpleNamespace(devices=np.array([device] * devices), size=devices)
    return options.choose_options(jax.jit(function), mesh, X)


def looped(x):
    """Kernels in a loop, and one that asks for nothing."""
    return jax.lax.scan(lambda x, _: (add_one(x, 40), None), add_one(x), None, 3)[0]


def test_kernels_get_what_the_greediest_asks_for():
    found = choose(lambda x: looped(add_one(x, 24)))
    assert found == options.OVERLAP | {options.ROOM: 40 << 10}


def test_chips_of_one_core_hide_gathers_too():
    found = choose(looped, kind="TPU v6 lite")
    assert found == options.OVERLAP | options.GATHERS | {options.ROOM: 40 << 10}


def test_small_kernels_leave_the_compiler_what_it_expects():
    assert choose(lambda x: add_one(x, 2))[options.ROOM] == options.LEAST >> 10


def test_one_chip_sends_nothing_but_its_kernels_have_room():
    assert choose(looped, devices=1) == {options.ROOM: 40 << 10}


@pytest.mark.parametrize(
    ("function", "changes"),
    [
        (looped, {"platform": "cpu"}),
        (looped, {"platform": "gpu"}),
        (jnp.sin, {}),
        (add_one, {}),
    ],
)
def test_the_compiler_is_left_alone_elsewhere(function, changes):
    assert choose(function, **changes) is None
