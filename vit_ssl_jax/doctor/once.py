"""The check that `main` makes at first contact: fused blocks do what plain ones do.

Once per machine, model shape and version, on accelerators. The answer is kept beside
the compiled programs.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import time

import jax

import vit_ssl_jax
from vit_ssl_jax import build
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.doctor import cases, findings, fused_blocks
from vit_ssl_jax.workdir.folder import replace
from vit_ssl_jax.xla import cache

PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
SHAPES = ("batch_size", "accum", "method", "vit", "mesh")  # of the config


def check_kernels(config, run, say):
    """The `build.Run` to go on with: `run`, or a plain one where fused blocks are wrong.

    `say` is given lines where the check is made, and always where blocks are wrong. A
    run told `config.vit.kernels=fused` keeps its blocks. `config` stays as it is.
    """
    if jax.default_backend() == "cpu" or config.vit.kernels == "plain":
        return run
    facts = describe_machine(config, run)
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    file = cache.cache_folder("kernels") / f"{name}.json"
    faults = recall(file)
    if processes.any_process(faults is None):
        begun = time.perf_counter()
        say("kernels: compared with plain blocks, once for this machine and model")
        results = []
        try:
            results = [
                fused_blocks.compare(case, run.mesh, True)
                for case in cases.find_cases(run)
            ]
        except Exception as error:  # noqa: BLE001 - a check that can't be stops nothing
            say(f"kernels: not checked ({findings.first_line(error)})")
        faults = [text for text in map(fused_blocks.describe_fault, results) if text]
        errors = any("error" in each for each in results)  # for want of memory, say
        if results and not errors:
            remember(file, dict(faults=faults, **facts))
        if results and not faults:
            seconds = time.perf_counter() - begun
            say(f"kernels: as exact as plain blocks ({seconds:.0f} s)")
    if not processes.any_process(faults):
        return run
    device = run.mesh.devices.flat[0].device_kind
    fault = (faults or ["another process says so"])[0]
    more = "python -m vit_ssl_jax.doctor --config=... says more"
    if config.vit.kernels == "fused":
        say(
            f"kernels: {fault} on {device}: config.vit.kernels=fused keeps them; {more}"
        )
        return run
    say(f"kernels: {fault} on {device}: going on with config.vit.kernels=plain; {more}")
    config = config.copy_and_resolve_references()
    config.vit.kernels = "plain"
    return build.make_run(config, list(run.mesh.devices.flat))


def describe_machine(config, run):
    """All that the answer depends on, as JSON has it."""
    config = json.loads(config.to_json_best_effort())
    del config["vit"]["kernels"]  # the question is the same
    device = run.mesh.devices.flat[0]
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return dict(
        device=device.device_kind,
        count=run.mesh.size,
        config={
            **{name: config[name] for name in SHAPES},
            "size": config["data"]["size"],
        },
        versions={**versions, "vit_ssl_jax": vit_ssl_jax.__version__},
        source=hash_source(),
    )


def hash_source():
    """Hash of the files that say what blocks compute, and when they differ."""
    package = pathlib.Path(vit_ssl_jax.__file__).parent
    digest = hashlib.sha256()
    for folder in ("kernels", "models", "doctor"):
        for file in sorted((package / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def recall(file):
    """The faults found before; None where nothing is known."""
    try:
        return json.loads(file.read_text())["faults"]
    except (OSError, ValueError, KeyError):
        return None


def remember(file, answer):
    """Keeps the answer, where that can be."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, json.dumps(answer, indent=2) + "\n")
