"""XLA's compiler for NVIDIA GPUs, in two packages of jax's: whether it is there, and cuDNN's version."""

import contextlib
import importlib.metadata

import jax

from vit_ssl_jax.errors import UserError

PACKAGES = "jax-cuda{}-plugin", "jax-cuda{}-pjrt"
CUDNN = (9, 10, 0)  # that the cards are told to have


def check_plugin():
    """Raises UserError unless both packages are there, of jax's own version."""
    wanted = jax.__version__
    install = "pip install --no-deps " + " ".join(
        f"{name.format(13)}=={wanted}" for name in PACKAGES
    )
    installed = []
    for cuda in (13, 12):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed.append(
                [importlib.metadata.version(n.format(cuda)) for n in PACKAGES]
            )
    if any(set(pair) == {wanted} for pair in installed):
        return
    if installed:
        raise UserError(
            f"--topology: the compiler for GPUs is {' and '.join(installed[0])} "
            f"(plugin and pjrt), but jax is {wanted}; {install}"
        )
    raise UserError(
        "--topology: compiling for a GPU needs its compiler, which isn't installed: pip "
        f"install -e '.[plan-gpu]', or {install} (no GPU, driver or CUDA is needed)"
    )


def tell_cudnn():
    """Gives jax the version of cuDNN that the cards have where none is installed.

    jax asks the library itself, of which compiling needs nothing else.
    """
    from jax._src.lib import cuda_versions  # jax has no other name for it

    try:
        cuda_versions.cudnn_get_version()
    except RuntimeError:
        major, minor, patch = CUDNN
        cuda_versions.cudnn_get_version = lambda: major * 10000 + minor * 100 + patch
