"""The loop: from a config and a workdir to a trained encoder, resumable at any step."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import vit_ssl_jax
from vit_ssl_jax import build, checkpoint, inputs, partition, processes, startup, step
from vit_ssl_jax.data import given
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import health, online, suite, summary
from vit_ssl_jax.intro import introduce
from vit_ssl_jax.pretrained import init_encoder
from vit_ssl_jax.signals import stop_now, stop_on_signal
from vit_ssl_jax.workdir import open_workdir, write_config
from vit_ssl_jax.writer import Meter, Writer, console_line, read_metrics, results_line


def train(
    config: ConfigDict, workdir: str | os.PathLike, data: given.Data | None = None
) -> dict | None:
    """Trains by `config` in `workdir`; the same call again continues.

    config: a recipe (`recipes.load("quickstart.py:mae", batch_size=64)`); stays as it is.
    data: instead of what `config.data` names: images uint8 `[n h w 3]`, `{"image":
        those, "label": int [n]}`, a data set with `len()` and examples by number, a
        `data.sources.Source`, or `{"train": ..., "test": ...}` of these; evaluators
        whose split isn't given are off. Several processes are given the same.

        train(config, "runs/mine", {"train": {"image": x, "label": y}, "test": ...})

    Order of starting: 1. the newest whole checkpoint of the workdir, 2. scratch, with
    the encoder of `config.init_from` (another run's workdir) where that is given.
    Returns the closing summary (dict) where `config.summary` asks for one, else None.
    Raises UserError for what the user can put right, before any long work.
    """
    with stop_on_signal() as asked:
        return run_to_end(config, open_workdir(workdir), asked, data)


@dataclasses.dataclass
class Session:
    """What the loop works with."""

    config: Any
    run: build.Run
    source: Any  # of images
    evals: suite.Suite
    probe: online.Probe
    monitor: health.Monitor
    checkpoints: checkpoint.Checkpoints
    log: Writer
    clock: Callable  # () -> seconds of the run, over all its sessions
    asked: Any  # of `signals.stop_on_signal`


def run_to_end(config, workdir, asked, data=None):
    """`train` with its two ends: what is built before the loop, what is said after it."""
    begun = time.perf_counter()
    config = config.copy_and_resolve_references()
    open_source, source, line = inputs.open_run(config, data)
    startup.use_cache()
    run, lines = build.make_run(config), [line]
    labelled = source.num_classes > 0
    evals = suite.Suite(config, run, labelled, lines.append, open_source=open_source)
    probe = online.Probe(config, run, functools.partial(build.step_flops, config))
    lines.append(probe.line)

    checkpoints = checkpoint.Checkpoints(workdir, config.keep)
    state, seconds, notes = first_state(config, run, probe, checkpoints)
    start = int(state.step)
    if start > run.steps:
        raise UserError(
            f"{workdir} is at step {start}, beyond the {run.steps} steps of the config; "
            "raise config.epochs or config.steps, or give a new --workdir"
        )
    changed = write_config(config, workdir, vit_ssl_jax.__version__)
    log = Writer(workdir, start=start, steps=run.steps)
    with contextlib.closing(log):
        introduce(log.say, config, run, state, lines + notes, changed)
        processes.wait_for_all("metrics.jsonl is cut back")
        monitor = health.Monitor(config, run, read_metrics(workdir, "ssl/"))
        clock = Clock(begun, seconds)
        session = Session(
            config, run, source, evals, probe, monitor, checkpoints, log, clock, asked
        )
        try:
            state = loop(session, state)
        finally:
            checkpoints.close()
        if source.broken:
            log.say(f"{len(source.broken)} broken images were replaced by others")
        done = int(state.step)
        if done < run.steps:
            log.say(f"stopped at step {done}, saved; the same command continues")
            return None
        if not (config.summary and evals.names):
            return None
        return summary.report(
            evals,
            state,
            run.program.init(jax.random.key(config.seed)),
            workdir=workdir,
            seconds=clock,
            say=log.say,
        )


def first_state(config, run, probe, checkpoints):
    """The state to start from, the run's seconds before it, and what to say about it.

    A checkpoint without online probes, or with ones that aren't wanted any more, fits.
    """
    bare, lines = run.program.state, []
    likes = [bare.replace(probe=probe.like), bare]
    if not probe.images:
        likes.reverse()
    state, seconds = checkpoints.restore(*likes) or (None, 0.0)
    resumed = state is not None
    if not resumed:
        state = run.program.init(jax.random.key(config.seed))
        if config.init_from:
            state, lines = init_encoder(config, run, state)
    if probe.images and not state.probe:
        state = state.replace(probe=probe.init())
        lines += ["online probes: none in the checkpoint, they start here"] * resumed
    elif state.probe and not probe.images:
        state = state.replace(probe={})
        lines.append("online probes: those in the checkpoint are dropped")
    return state, seconds, lines


def loop(s, state):
    """Steps until the end or until a signal asks to stop; returns the state, saved."""
    config, run, log = s.config, s.run, s.log
    key = jax.random.key_data(jax.random.key(config.seed))
    key = jax.random.wrap_key_data(partition.put(key, run.program.replicated))
    start = int(state.step)
    batches = inputs.open_batches(config, s.source, start)
    meter, watch = Meter(start), startup.CacheWatch()
    for done in range(start + 1, run.steps + 1):
        if stop_now(s.asked, done):
            break
        with meter.waiting():
            batch = next(batches)
        batch = step.put_batch(batch, run.mesh)
        with watch if done == start + 1 else contextlib.nullcontext():
            state, metrics = advance(s, state, batch, key, done)
        log.advance()
        if done == start + 1:
            jax.block_until_ready((metrics, state.probe))
            seconds = f"{meter.seconds():.1f} s{watch.remark}"
            log.say(f"first step, with compilation: {seconds}")
            meter = Meter(done)

        last = done == run.steps
        if done % config.log_every == 0 or last:
            write_metrics(s, state, metrics, meter, done)
            meter = Meter(done)
        if s.monitor.due(done):
            watch_health(s, state, batch, key, done)
            meter = Meter(done)
        if due := s.evals.due(done, last):
            results = s.evals.evaluate(state, due)
            log.write(done, results)
            log.say(results_line(results))
            meter = Meter(done)
        if done % config.checkpoint_every == 0:
            check_finite(jax.device_get(metrics["train/loss"]), done)
            save(s, state)
    if int(state.step) > start:
        check_finite(jax.device_get(metrics["train/loss"]), int(state.step))
    if start < run.steps:  # and not finished before
        save(s, state)
    return state


def save(s, state):
    """Begins a checkpoint; the metrics up to its step are in the workdir by then."""
    s.log.flush()
    s.checkpoints.save(state, s.clock())


def advance(s, state, batch, key, done):
    """One step, then the online probes, which the step's program never sees."""
    probe = state.probe
    with jax.transfer_guard("disallow"):
        state, metrics = s.run.program.step(state.replace(probe={}), batch, key)
        state = s.probe.after(state.replace(probe=probe), batch, done)
    return state, metrics


def write_metrics(s, state, metrics, meter, done):
    """Writes what the step and the online probes say, and the speed."""
    metrics = jax.device_get(metrics | s.probe.metrics(state, done))
    check_finite(metrics["train/loss"], done)
    metrics |= meter.read(done, s.config.batch_size)
    metrics |= {
        "epoch": done / s.run.steps_per_epoch,
        "examples_seen": done * s.config.batch_size,
        "data/broken_images": len(s.source.broken),
    }
    s.log.write(done, metrics)
    s.log.say(console_line(done, s.run.steps, metrics))


def watch_health(s, state, batch, key, done):
    """Measures the representation; says when it collapses, and stops where asked to.

    Raises UserError under the policy "stop", the state saved.
    """
    readings, alarm = s.monitor.check(state, batch, key)
    s.log.write(done, readings)
    if alarm:
        s.log.say(f"step {done}: {alarm}")
    if alarm and s.config.health.policy == "stop":
        check_finite(readings["ssl/feature_std"], done)
        save(s, state)
        raise UserError(
            f"stopped at step {done} and saved, for config.health.policy is 'stop': "
            f"{alarm}; --config.health.policy=warn goes on from there regardless"
        )


def check_finite(loss, done):
    """Raises UserError for a loss that is no number; such a state is never saved."""
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {done}; nothing was saved since the last "
            "checkpoint. Lower config.optim.lr, set config.optim.clip=1.0 or "
            "config.vit.dtype=float32, and run the same command to go on from there"
        )


class Clock:
    """Wall time of a run in seconds, over all its sessions."""

    def __init__(self, begun, before):
        self._begun, self._before = begun, before

    def __call__(self):
        return self._before + time.perf_counter() - self._begun
