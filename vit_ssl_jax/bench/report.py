"""What `bench step` measures and prints."""

import importlib.util

import jax

from vit_ssl_jax.bench import step, timing
from vit_ssl_jax.errors import UserError


def measure(config, rounds, twin):
    """Times a config's step, with `twin` PyTorch's in turn with it: a JSON-able dict."""
    config = config.copy_and_resolve_references()
    if twin:
        check_twin(config)
    ours, facts = step.prepare(config)
    memory, kind = step.peak_memory()  # before PyTorch allocates any
    others = make_twins(config) if twin else {}
    seconds = timing.take_turns({"jax": ours, **others}, rounds)
    facts |= dict(
        recipe=config.recipe,
        method=config.method.name,
        variant=config.vit.variant,
        dtype=config.vit.dtype,
        peak_memory_bytes=memory,
        peak_memory_of=kind,
        rounds=rounds,
        **timing.summarize(seconds["jax"], config.batch_size),
    )
    facts["share_of_peak"] = step.share_of_peak(facts)
    facts["twins"] = {
        name: timing.summarize(seconds[name], config.batch_size)
        | {"ratio": timing.ratio(seconds["jax"], seconds[name])}
        for name in others
    }
    return facts


def check_twin(config):
    """Raises UserError where there can be no step in PyTorch."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--twin: PyTorch isn't installed; pip install 'torch>=2.6', on a machine "
            "without a GPU from https://download.pytorch.org/whl/cpu"
        )
    if jax.default_backend() not in ("cpu", "gpu"):
        raise UserError(
            f"--twin: PyTorch has no {jax.default_backend()}; leave it out here"
        )
    if len(jax.devices()) > 1:
        raise UserError(
            f"--twin: PyTorch's step uses one device, here are {len(jax.devices())}; "
            "set CUDA_VISIBLE_DEVICES=0"
        )
    from vit_ssl_jax.bench import twin  # torch is heavy, and optional

    twin.check(config)


def make_twins(config):
    """PyTorch's steps by name, compiled; raises UserError where they don't fit."""
    from vit_ssl_jax.bench import twin

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    steps = {}
    try:
        for name, compiled in (("torch eager", False), ("torch compiled", True)):
            steps[name] = twin.make_step(config, device, compiled=compiled)
            steps[name]()  # compiles
            steps[name]()
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise UserError(
            f"--twin: PyTorch's step doesn't fit beside ours ({error}); try "
            f"--config.batch_size={config.batch_size // 2}"
        ) from error
    return steps


def describe(figures):
    """The figures as lines."""
    work = f"{figures['method']} {figures['variant']}, {figures['dtype']}"
    cache = f" (compilation cache: {figures['cache']})" if figures["cache"] else ""
    trace, compiling = figures["trace_seconds"], figures["compile_seconds"]
    where = f"batch {figures['batch_size']} on {figures['device']}"
    lines = [
        f"{figures['recipe']}, {work}, {where}",
        f"trace {trace:.1f} s, compile {compiling:.1f} s{cache}",
        f"model FLOPs an image: {figures['model_flops_per_image'] / 1e9:.2f} G",
        speed_line("jax", figures),
    ]
    for name, row in figures["twins"].items():
        lines.append(speed_line(name, row) + f"; jax is {row['ratio']:.2f} x as fast")
    if figures["share_of_peak"] is None:
        lines.append(
            f"share of peak: the {figures['dtype']} peak of this device isn't known"
        )
    else:
        lines.append(
            f"share of peak: {figures['share_of_peak']:.3f} of "
            f"{figures['peak_flops'] / 1e12:.0f} TFLOP/s a device"
        )
    gigabytes = figures["peak_memory_bytes"] / 2**30
    lines.append(f"peak memory: {gigabytes:.2f} GiB, the {figures['peak_memory_of']}")
    return "\n".join(lines)


def speed_line(name, row):
    """One contender's rate and spread."""
    return (
        f"{name}: {row['images_per_second']:.4g} images/s, "
        f"{row['step_seconds']:.4g} s a step (median; half of the steps within "
        f"{row['step_seconds_low']:.4g} and {row['step_seconds_high']:.4g})"
    )
