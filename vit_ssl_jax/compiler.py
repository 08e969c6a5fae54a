"""What the TPU compiler is told of a step, so that devices send while they compute."""

from vit_ssl_jax import flops

KERNEL = "pallas_call"
# Collectives are under way while kernels run. Without these a kernel waits for them.
OVERLAP = {
    "xla_enable_async_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_with_mosaic_custom_call": True,
}
# A kernel that is joined with a collective gets this much of VMEM, not what it asks for.
ROOM = "xla_tpu_scoped_vmem_limit_kib"


def options(step, mesh, *shapes):
    """Options to compile a jitted step with, None where the compiler's own are best.

    That is everywhere but on several TPU chips that run kernels of ours.
    """
    if mesh.devices.flat[0].platform != "tpu" or mesh.size == 1:
        return None
    rooms = list(kernel_rooms(step.trace(*shapes).jaxpr.jaxpr))
    return OVERLAP | {ROOM: max(rooms) >> 10} if rooms else None


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
