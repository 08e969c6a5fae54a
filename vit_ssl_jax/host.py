"""What a process of ours has set before jax looks for devices: quiet, memory, errors."""

import ctypes
import os
import sys

from vit_ssl_jax.distributed import clusters

# What libtpu asks the cloud for, and complains of at length where there is none.
NO_CLOUD = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
# The share of a GPU's memory that jax takes, instead of its own default of 0.75; CUDA,
# cuDNN, cuBLAS and NCCL live on the rest.
GPU_MEMORY = 0.9
NO_MAPPING, TRIM_FROM, TAKE_MORE = -4, -1, -2  # numbers of glibc's mallopt


def prepare():
    """What comes before jax looks for devices; to be called again once jax is there.

    Compilers are calmed, a CPU fails at once and, where there is no other, keeps memory.
    """
    calm_compilers()
    if sys.modules.get("jax"):
        fail_at_once()
    has_other = clusters.has_chips() or clusters.has_cards()
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not has_other:
        keep_memory()


def fail_at_once():
    """Makes a CPU compute before a call returns, so that want of memory is its error.

    Else jax waits without end for the numbers of a program that failed. It imports jax.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_memory():
    """Has freed memory kept for the next step: half as many steps more of a small ViT.

    glibc gives large blocks back at once, and new ones come page by page, filled with
    zeros. It is left alone elsewhere than with glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(NO_MAPPING, 0)
        mallopt(TRIM_FROM, 2**31 - 1)
        mallopt(TAKE_MORE, 64 << 20)


def calm_compilers():
    """Keeps libtpu and the CUDA plugin quiet on a host without a TPU, or without a GPU.

    There they serve to plan with alone.
    """
    if not clusters.has_chips():
        for key, value in NO_CLOUD.items():
            os.environ.setdefault(key, value)
    if not clusters.has_cards():
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")


def take_gpu_memory():
    """Has jax take GPU_MEMORY, unless a variable of jax's says how much."""
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", str(GPU_MEMORY))
