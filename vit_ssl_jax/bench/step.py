"""Our train step on random images: its rate, share of peak, memory, compile time."""

import resource
import sys
import time

import jax
import numpy as np

from vit_ssl_jax import build, step
from vit_ssl_jax.bench import peaks
from vit_ssl_jax.data import augment
from vit_ssl_jax.xla import cache

WARM_UP = 2  # steps before the first that counts


def random_batch(config):
    """A batch as the pipeline gives: `{image uint8 [B H W 3], label [B], id [B]}`."""
    rng = np.random.default_rng(config.seed)
    count, classes = config.batch_size, max(config.data.num_classes, 1)
    return dict(
        image=rng.integers(
            0, 256, (count, *augment.train_size(config.data), 3), np.uint8
        ),
        label=rng.integers(0, classes, count, np.int32),
        id=np.arange(count, dtype=np.int32),
    )


def prepare(config):
    """Compiles and warms up the very step that trains: `function() -> None`, and facts.

    A call does one optimiser step on the same images and returns when it is done. Facts
    are a dict of what is known before the timing. Raises UserError as `build` does.
    """
    run = build.make_run(config)
    begun = time.perf_counter()
    program = run.program
    lowered = step.lower(program)
    traced = time.perf_counter()
    with cache.CacheWatch() as watch:
        compiled = lowered.compile()
    facts = dict(
        device=f"{run.mesh.size} x {jax.devices()[0].device_kind}",
        batch_size=config.batch_size,
        trace_seconds=traced - begun,
        compile_seconds=time.perf_counter() - traced,
        cache=watch.outcome,
        model_flops_per_image=build.step_flops(config) // config.batch_size,
        peak_flops=peaks.peak(jax.devices()[0].device_kind, config.vit.dtype),
        devices=run.mesh.size,
    )
    key = jax.device_put(jax.random.key(config.seed), program.replicated)
    batch = step.put_batch(random_batch(config), run.mesh)
    state = program.init(key)

    def train():
        nonlocal state
        state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))

    for _ in range(WARM_UP):
        train()
    return train, facts


def peak_memory():
    """Peak bytes so far, and of what memory: a device's, or the process's on a CPU."""
    used = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.devices()]
    if None not in used:
        return max(used), "fullest device's memory"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak, "process's resident memory"


def share_of_peak(facts):
    """Model FLOPs a second over the devices' peak, or None where that isn't known."""
    if facts["peak_flops"] is None:
        return None
    rate = facts["model_flops_per_image"] * facts["images_per_second"]
    return rate / (facts["devices"] * facts["peak_flops"])
