"""Checks what is installed and at hand: versions, devices, drivers, memory, cores."""

import collections
import contextlib
import glob
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import subprocess

import jax

import vit_ssl_jax
from vit_ssl_jax import memory
from vit_ssl_jax.distributed import clusters
from vit_ssl_jax.doctor import findings

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
PLUGIN = re.compile(r"jax[-_]cuda(\d+)[-_](plugin|pjrt)")
NVIDIA_FILE = "/proc/driver/nvidia/version"
ASK_SECONDS = 10


def check_software():
    """Versions; plugins of another jax, which jax leaves out or fails at, aren't ok."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions = {"vit_ssl_jax": vit_ssl_jax.__version__, **versions}
    fits, wrong, kind = {versions["jax"], versions["jaxlib"]}, [], "13"
    for each in importlib.metadata.distributions():
        if match := PLUGIN.fullmatch(each.name or ""):
            # The first on the path is used.
            versions.setdefault(each.name, each.version)
    for name, version in versions.items():
        if (match := PLUGIN.fullmatch(name)) and version not in fits:
            wrong.append(f"{name} {version}")
            kind = match[1]
    versions["python"] = platform.python_version()
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not wrong:
        return findings.make("software", True, text, versions=versions)
    return findings.make(
        "software",
        False,
        f"{', '.join(wrong)}: not of jax {versions['jax']}; {text}",
        f"pip install -U 'jax[cuda{kind}]=={versions['jax']}'",
        versions=versions,
    )


def check_host():
    """Cores and memory of this host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = cores or os.cpu_count()
    ram = memory.of_machine()
    text = f"{cores} cores, {ram / 2**30:.1f} GiB of memory, {platform.platform()}"
    return findings.make("host", True, text, cores=cores, memory_bytes=ram)


def check_devices():
    """What jax computes on; not ok where there is an accelerator that it doesn't see."""
    devices = jax.devices()
    kinds = collections.Counter(device.device_kind for device in devices)
    kinds = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    numbers = dict(devices=len(devices), kind=devices[0].device_kind)
    each = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    text = kinds + (f" with {each / 2**30:.1f} GiB each" if each else "")
    numbers |= dict(memory_bytes=each, driver=find_driver())
    text += f", {numbers['driver']}" if numbers["driver"] else ""
    if jax.default_backend() != "cpu":
        return findings.make("devices", True, text, **numbers)
    unseen = find_accelerators()
    if not unseen:
        return findings.make("devices", True, f"{text}; no accelerator", **numbers)
    accelerator, extra = unseen
    text += f"; the {accelerator} of this machine isn't used"
    if "cpu" in (jax.config.jax_platforms or ""):  # as its user wants it
        text += f", as jax_platforms={jax.config.jax_platforms} says"
        return findings.make("devices", True, text, **numbers)
    cure = f"pip install -e '.[{extra}]', and `python -c 'import jax; jax.devices()'`"
    return findings.make("devices", False, text, f"{cure} says more", **numbers)


def find_accelerators(root="/"):
    """Looks for `(accelerator, the extra it needs)`, whatever jax sees; or None."""
    if files := sorted(glob.glob("dev/nvidia[0-9]*", root_dir=root)):
        return f"NVIDIA card (/{files[0]})", "cuda"
    if cards := ask_nvidia("-L"):
        return f"NVIDIA card ({cards.splitlines()[0]})", "cuda"
    if clusters.has_chips():
        return "TPU", "tpu"
    return None


def find_driver(file=NVIDIA_FILE):
    """The driver of an NVIDIA card, or libtpu of a TPU; "" where neither is in use."""
    if jax.default_backend() == "tpu":
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"libtpu {importlib.metadata.version('libtpu')}"
        return "libtpu of the system"
    with contextlib.suppress(OSError):
        # NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 ...
        text = pathlib.Path(file).read_text()
        if match := re.search(r"\b\d+\.\d+(\.\d+)*\b", text):
            return f"NVIDIA driver {match[0]}"
    if version := ask_nvidia("--query-gpu=driver_version", "--format=csv,noheader"):
        return f"NVIDIA driver {version.splitlines()[0]}"
    return ""


def ask_nvidia(*words):
    """What `nvidia-smi` answers; "" where it can't, or isn't there."""
    if not (program := shutil.which("nvidia-smi")):
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [program, *words],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
