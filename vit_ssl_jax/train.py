"""The loop: from a config and a workdir to a trained encoder, resumable at any step."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

import vit_ssl_jax
from vit_ssl_jax import (
    arguments,
    build,
    command,
    console,
    fit,
    pretrained,
    starting,
    step,
    train_data,
)
from vit_ssl_jax.closing import say_closing
from vit_ssl_jax.data import from_python
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.distributed.signals import stop_now, stop_on_signal
from vit_ssl_jax.doctor import once
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import suite, summary
from vit_ssl_jax.monitors import health, online
from vit_ssl_jax.workdir import checkpoint, folder
from vit_ssl_jax.workdir.metrics import Meter, Writer, read_metrics
from vit_ssl_jax.xla import cache


def train(
    config: ConfigDict, workdir: str | os.PathLike, data: from_python.Data | None = None
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
    arguments.check_training(config)
    command.calm_compilers()
    with stop_on_signal() as stop_requested:
        return run_to_end(config, folder.open_workdir(workdir), stop_requested, data)


@dataclasses.dataclass(kw_only=True)
class Session:
    """What the loop works with."""

    config: Any
    run: build.Run
    ready: fit.Ready | None  # its step, compiled; None: no step is left to do
    source: Any  # of images
    evals: suite.Suite
    probe: online.Probe
    monitor: health.Monitor
    checkpoints: checkpoint.Checkpoints
    log: Writer
    clock: Callable  # () -> seconds of the run, over all its sessions
    stop_requested: Any  # of `signals.stop_on_signal`


def run_to_end(config, workdir, stop_requested, data=None):
    """Builds what the loop needs, runs it, says how it ended; returns as `train`."""
    begun = time.perf_counter()
    config = config.copy_and_resolve_references()
    fit.fail_at_once()
    inherited = pretrained.inherit(config, workdir)
    open_source, source, lines = train_data.open_run(config, data)
    lines += inherited + train_data.keep_pixels(config, workdir)
    card, about = train_data.make_card(config, source)
    source, kept = train_data.keep_decoded(config, source)
    lines += about + kept
    cache.use_cache()
    run = once.check_kernels(config, build.make_run(config), console.say)
    evals = suite.Suite(
        config,
        run,
        labelled=source.num_classes > 0,
        say=lines.append,
        open_source=open_source,
    )
    probe = online.Probe(config, run, functools.partial(build.step_flops, config))
    lines.append(probe.line)

    console.introduce(config, run, dict.fromkeys(lines))
    begin = starting.begin(config, run, probe, workdir)
    checkpoints, ready, start = begin.checkpoints, begin.ready, int(begin.state.step)
    changed = folder.write_config(config, workdir, vit_ssl_jax.__version__)
    changed += train_data.write_card(card, workdir)
    log = Writer(workdir, start=start, steps=run.steps)
    with contextlib.closing(log), fit.explained(config, run, ready):
        console.say_start(run, start, begin.notes, changed)
        processes.wait_for_all("metrics.jsonl is cut back")
        session = Session(
            config=config,
            run=run,
            ready=ready,
            source=source,
            evals=evals,
            probe=probe,
            monitor=health.Monitor(config, run, read_metrics(workdir, "ssl/")),
            checkpoints=checkpoints,
            log=log,
            clock=console.Clock(begun, begin.seconds),
            stop_requested=stop_requested,
        )
        try:
            state = loop(session, begin.state)
        finally:
            checkpoints.close()
        return finish(session, state, workdir)


def loop(s, state):
    """Steps until the end or until a signal asks to stop; returns the state, saved."""
    start = int(state.step)
    batches = train_data.open_batches(s.config, s.source, start, s.run.method)
    with contextlib.closing(batches):
        state, metrics = take_steps(s, state, batches)
    if int(state.step) > start:
        health.check_finite(jax.device_get(metrics["train/loss"]), int(state.step))
    if start < s.run.steps:  # and not finished before
        save(s, state)
    return state


def take_steps(s, state, batches):
    """Steps on `batches` as `loop` does: the state, and the last step's metrics."""
    config, run, log = s.config, s.run, s.log
    key = starting.make_key(config.seed, run.program)
    start, metrics = int(state.step), {}
    meter = Meter(start)
    for done in range(start + 1, run.steps + 1):
        if stop_now(s.stop_requested, done):
            break
        with meter.waiting():
            batch = next(batches)
        batch = step.put_batch(batch, run.mesh)
        state, metrics = advance(s, state, batch, key, done)
        log.advance()
        if done == start + 1:
            jax.block_until_ready((metrics, state.probe))
            seconds = s.ready.seconds + meter.seconds()
            log.say(f"first step, with compilation: {seconds:.1f} s{s.ready.remark}")
            meter = Meter(done)

        last = done == run.steps
        if done % config.log_every == 0 or last:
            write_metrics(s, state, metrics, meter, done)
            meter = Meter(done)
        if s.monitor.due(done):
            watch_health(s, state, batch, key, done)
            meter = Meter(done)
        if due := s.evals.due(done, last):
            with fit.explained(config, run, s.ready, evaluating=True):
                results = s.evals.evaluate(state, due)
            log.write(done, results)
            log.say(console.results_line(results))
            meter = Meter(done)
        if done % config.checkpoint_every == 0:
            health.check_finite(jax.device_get(metrics["train/loss"]), done)
            save(s, state)
    return state, metrics


def finish(s, state, workdir):
    """Says how the loop ended; returns the closing summary where one is wanted."""
    if s.source.broken:
        s.log.say(f"{len(s.source.broken)} broken images were replaced by others")
    done = int(state.step)
    if done < s.run.steps:
        s.log.say(f"stopped at step {done}, saved; the same command continues")
        return None
    out = None
    if s.config.summary and s.evals.names:
        out = summary.report(
            s.evals,
            state,
            s.run.program.init(jax.random.key(s.config.seed)),
            workdir=workdir,
            seconds=s.clock,
            say=s.log.say,
        )
    say_closing(s.config, s.run, s.source, state, workdir=workdir, say=s.log.say)
    return out


def save(s, state):
    """Begins a checkpoint; the metrics up to its step are in the workdir by then."""
    s.log.flush()
    s.checkpoints.save(state, s.clock())


def advance(s, state, batch, key, done):
    """One step, then the online probes, which the step's program never sees."""
    probe = state.probe
    with jax.transfer_guard("disallow"):
        state, metrics = s.ready.call(state.replace(probe={}), batch, key)
        state = s.probe.after(state.replace(probe=probe), batch, done)
    return state, metrics


def write_metrics(s, state, metrics, meter, done):
    """Writes what the step and the online probes say, and the speed."""
    metrics = jax.device_get(metrics | s.probe.metrics(state, done))
    health.check_finite(metrics["train/loss"], done)
    metrics |= meter.read(done, s.config.batch_size) | {
        "epoch": done / s.run.steps_per_epoch,
        "examples_seen": done * s.config.batch_size,
        "data/broken_images": len(s.source.broken),
    }
    s.log.write(done, metrics)
    s.log.say(console.console_line(done, s.run.steps, metrics))


def watch_health(s, state, batch, key, done):
    """Measures the representation; says when it collapses, and stops where asked to.

    Raises UserError under the policy "stop", the state saved.
    """
    readings, alarm = s.monitor.check(state, batch, key)
    s.log.write(done, readings)
    if alarm:
        s.log.say(f"step {done}: {alarm}")
    if alarm and s.config.health.policy == "stop":
        health.check_finite(readings["ssl/feature_std"], done)
        save(s, state)
        raise UserError(
            f"stopped at step {done} and saved, for config.health.policy is 'stop': "
            f"{alarm}; --config.health.policy=warn goes on from there regardless"
        )
