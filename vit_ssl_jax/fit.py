"""The step of a run compiled before anything else, and what would make it fit."""

import contextlib
import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_ssl_jax import memory, remedies
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError, is_exhausted
from vit_ssl_jax.xla import cache

ROOM = 0.9  # of a device may be filled by a step that is advised: other things run, too
MOST = 2**32 - 1  # KiB that processes tell each other
LESS = 0.75  # of a step that was too much at run time, whatever the device has


@dataclasses.dataclass(frozen=True)
class Ready:
    """The step of a run, compiled, and what it needs."""

    call: Callable  # (state, batch, key) -> (state, metrics)
    need: memory.Need
    has: int | None  # bytes of a device; None: unknown
    seconds: float  # to compile
    remark: str  # where the compiled program came from


def compile_step(config, run, say):
    """Compiles the step of a `build.Run` ahead of its first call: a `Ready`.

    Raises UserError, with flags that would do, where it needs more than a device has.
    """
    begun = time.perf_counter()
    with cache.CacheWatch() as watch:
        compiled, refusal = memory.compile_step(run.program)
    seconds = time.perf_counter() - begun
    need, has = memory.need_of(run.program, compiled, refusal), smallest(run.mesh)
    device = run.mesh.local_devices[0]
    says = memory.share(need.total, has, device)
    too_much = has is not None and need.total > has
    if processes.any_process(refusal or too_much):
        say(f"memory: the step needs {says}; looking for what fits")
        measure = remedies.compiler(config, run, seconds)
        limit = ROOM * (has or need.total)
        advice = remedies.advise(config, run, need, limit, measure)
        more = memory.pool_hint(device, has)
        raise UserError(
            f"needs {says}; {remedies.describe(advice, together(device))}{more}"
        )
    say(f"memory: the step needs {says}")
    free = memory.free_now() if device.platform == "cpu" else None
    if free is not None and need.total * jax.local_device_count() > free:
        say(
            f"note: only {memory.size(free)} of it are free now; end what else runs here"
        )
    return Ready(compiled, need, has, seconds, watch.remark)


def smallest(mesh):
    """Bytes of a device at hand, of the process that has least; None: unknown."""
    has = memory.of_device(mesh.local_devices[0])
    if jax.process_count() == 1:
        return has
    kib = multihost_utils.process_allgather(np.uint32(min((has or 0) >> 10, MOST)))
    return int(np.min(kib)) << 10 or None


def together(device):
    """Number of devices whose memory messages count together: CPUs are one machine."""
    return jax.local_device_count() if device.platform == "cpu" else 1


@contextlib.contextmanager
def explained(config, run, ready=None, evaluating=False):
    """Turns what fails inside for want of memory into one message; all else passes.

    `ready` is the `Ready` of the run, if its step is compiled; `evaluating`: what runs
    inside are evaluators. Raises UserError.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_exhausted(error):
            raise
        raise UserError(exhausted(config, run, ready, evaluating, error)) from error


def exhausted(config, run, ready, evaluating, error):
    """The text of a UserError that explains an error for want of memory."""
    device = run.mesh.local_devices[0]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    while_ = " while evaluating" * evaluating
    texts = [f"out of memory{while_} ({lines[0][:200]})"]
    if evaluating and (size := config.data.eval_batch_size) > 1:
        texts.append(
            f"--config.data.eval_batch_size={size // 2} halves what evaluators compute "
            "at once"
        )
    if ready:
        need, has = ready.need, ready.has
        texts.append(f"the step was to need {memory.share(need.total, has, device)}")
        limit = min(LESS * need.total, ROOM * (has or need.total))
        advice = remedies.advise(config, run, need, limit)
        words = remedies.describe(advice, together(device))
        texts.append(words + memory.pool_hint(device, has))
    texts.append("the same command goes on from the last checkpoint")
    return "; ".join(texts)
