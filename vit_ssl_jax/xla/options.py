"""Options of the TPU compiler for a step, so that devices send while they compute."""

from vit_ssl_jax.xla import flops

KERNEL = "pallas_call"
# Collectives are under way while kernels run. Without these a kernel waits for them.
OVERLAP = {
    "xla_enable_async_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_with_mosaic_custom_call": True,
}
# All-gathers, too, which v5e has by itself and v6e hasn't. On chips whose two cores share a
# kernel (v5p) the compiler aborts.
GATHERS = {
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
}
ONE_CORE = {"TPU v5 lite", "TPU v6 lite"}
# A kernel that is joined with a collective or with XLA's own operations gets this much of
# VMEM, not what it asks for; so does all that XLA makes itself, which expects LEAST.
ROOM = "xla_tpu_scoped_vmem_limit_kib"
LEAST = 32 << 20


def choose_options(step, mesh, *shapes):
    """Options to compile a jitted step with, None where the compiler's own are best.

    That is everywhere but on TPU chips that run kernels of ours.
    """
    device = mesh.devices.flat[0]
    if device.platform != "tpu":
        return None
    rooms = list(kernel_rooms(step.trace(*shapes).jaxpr.jaxpr))
    if not rooms:
        return None
    room = {ROOM: max(LEAST, *rooms) >> 10}
    if mesh.size == 1:
        return room
    gathers = GATHERS if device.device_kind in ONE_CORE else {}
    return OVERLAP | gathers | room


def kernel_rooms(jaxpr):
    """Bytes of VMEM of the kernels in a program that ask for any."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == KERNEL:
            wanted = equation.params["compiler_params"]
            if wanted and wanted.vmem_limit_bytes:
                yield wanted.vmem_limit_bytes
            continue
        for body in flops.bodies(equation.params):
            yield from kernel_rooms(body)
