"""Compiles one Pallas kernel for one chip: a process of `plan.kernel_cost.cost`.

    LIBTPU_INIT_ARGS="--xla_jf_dump_to=DIR ..." python -m vit_ssl_jax.plan.kernel_cost.alone JOB.json

libtpu reads its flags when it is loaded, hence a process for every kernel.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp

from vit_ssl_jax.plan import topologies
from vit_ssl_jax.plan.program import arrays, hlo

TARGET = "tpu_custom_call"  # what a Pallas kernel is to XLA
DTYPES = {"pred": "bool", "bf16": "bfloat16"}
PREFIXES = {"f": "float", "s": "int", "u": "uint"}


def compile_alone(path):
    """Compiles a job's kernel for one chip; raises ValueError if it changes on the way.

    The dumps go where the environment says.
    """
    job = json.loads(pathlib.Path(path).read_text())
    chip = topologies.CHIPS[job["chip"]]
    layout = "x".join(["1"] * chip.dimensions)
    devices, _ = topologies.get_devices(f"{chip.name}:{layout}", say=lambda text: None)
    sharding = jax.sharding.SingleDeviceSharding(devices[0])
    operands, results = (
        [
            jax.ShapeDtypeStruct(shape, dtype_of(dtype), sharding=sharding)
            for dtype, shape, _ in job[key]
        ]
        for key in ("operands", "results")
    )
    call = jax.ffi.ffi_call(
        TARGET,
        results if len(results) > 1 else results[0],
        custom_call_api_version=1,
        input_output_aliases=dict(job.get("aliases", [])),
        legacy_backend_config=json.dumps(job["config"]),
    )
    compiled = jax.jit(lambda *inputs: call(*inputs)).lower(*operands).compile()
    items = hlo.parse(compiled.as_text()).computations.values()
    types = {item.name: item.arrays for part in items for item in part}
    kernel = next(item for part in items for item in part if item.target == TARGET)
    for key, actual in (
        ("operands", [a for name in kernel.inputs for a in types[name]]),
        ("results", kernel.arrays),
    ):
        for (dtype, shape, layout), array in zip(job[key], actual, strict=True):
            # The compiler may put a scalar into the core's own memory, S(6).
            known = dataclasses.replace(array, layout=array.layout.replace("S(6)", ""))
            if arrays.Array(dtype, tuple(shape), layout) not in (array, known):
                raise ValueError(
                    f"{key}: {array}{{{array.layout}}} instead of {{{layout}}}"
                )


def dtype_of(name):
    """numpy's dtype of an HLO one: `bf16 -> bfloat16`."""
    return jnp.dtype(DTYPES.get(name) or PREFIXES[name[0]] + name[1:])


if __name__ == "__main__":
    compile_alone(sys.argv[1])
