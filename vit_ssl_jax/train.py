"""The loop: from a config and a workdir to a trained encoder, resumable at any step."""

import contextlib
import time

import jax
import numpy as np

import vit_ssl_jax
from vit_ssl_jax import build, checkpoint, step
from vit_ssl_jax.data import pipeline, sources
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import suite, summary
from vit_ssl_jax.models import vit
from vit_ssl_jax.pretrained import init_encoder
from vit_ssl_jax.signals import stop_on_signal
from vit_ssl_jax.workdir import open_workdir, write_config
from vit_ssl_jax.writer import Meter, Writer, console_line, results_line


def train(config, workdir):
    """Trains by `config` (ConfigDict) in `workdir`; the same call again continues.

    Order of starting: 1. the newest whole checkpoint of the workdir, 2. scratch, with
    the encoder of `config.init_from` (another run's workdir) where that is given.
    Returns the closing summary (dict) where `config.summary` asks for one, else None.
    Raises UserError for what the user can put right, before any long work.
    """
    with stop_on_signal() as asked:
        return run_to_end(config, open_workdir(workdir), asked)


def run_to_end(config, workdir, asked):
    """`train` with its two ends: what is built before the loop, what is said after it."""
    begun = time.perf_counter()
    config = config.copy_and_resolve_references()
    source, lines = open_data(config)
    run = build.make_run(config)
    evals = suite.Suite(config, run, source.num_classes > 0, lines.append)

    checkpoints = checkpoint.Checkpoints(workdir, config.keep)
    restored = checkpoints.restore(run.program.state)
    key = jax.random.key(config.seed)
    state, seconds = restored or (run.program.init(key), 0.0)
    if config.init_from and not restored:
        state, notes = init_encoder(config, run, state)
        lines += notes
    start = int(state.step)
    if start > run.steps:
        raise UserError(
            f"{workdir} is at step {start}, beyond the {run.steps} steps of the config; "
            "raise config.epochs or config.steps, or give a new --workdir"
        )
    changed = write_config(config, workdir, vit_ssl_jax.__version__)
    log = Writer(workdir, start=start, steps=run.steps)
    with contextlib.closing(log):
        introduce(log.say, config, run, state, lines, changed)
        clock = Clock(begun, seconds)
        try:
            state = loop(
                config, run, source, state, evals, log, checkpoints, clock, asked
            )
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
            run.program.init(key),
            workdir=workdir,
            seconds=clock,
            say=log.say,
        )


def open_data(config):
    """Opens the training data; its own counts replace the config's, and are printed."""
    data = config.data
    source = sources.open_source(data.name, data.dir, data.split, labels=data.labels)
    line = f"data: {data.name}, split {data.split}: {len(source):,} images"
    if source.num_classes:
        line += f" in {source.num_classes} classes"
    else:
        line += " without labels"
    if (len(source), source.num_classes) != (data.num_examples, data.num_classes):
        line += (
            f" (the config says {data.num_examples:,} in {data.num_classes}; "
            "the data's own counts are used)"
        )
    data.num_examples, data.num_classes = len(source), source.num_classes
    return source, [line]


def introduce(say, config, run, state, lines, changed):
    """What is about to run, on what, and where it starts."""
    devices, mesh = jax.devices(), run.mesh.shape
    axes = " ".join(f"{name}={size}" for name, size in mesh.items())
    say(
        f"vit_ssl_jax {vit_ssl_jax.__version__}, jax {jax.__version__}, "
        f"{len(devices)} {devices[0].device_kind} device(s), mesh {axes}"
    )
    for line in lines:
        say(line)
    total, encoder = (
        vit.parameter_count(p) / 1e6 for p in (state.params, run.encoder_params(state))
    )
    say(
        f"model: {config.method.name}, ViT {config.vit.variant} on a grid of "
        f"{'x'.join(map(str, run.encoder.grid))}: {total:.2f} M parameters, "
        f"{encoder:.2f} M of them in the encoder"
    )
    say(
        f"run: {run.steps} steps of {config.batch_size} images "
        f"({run.steps / run.steps_per_epoch:.1f} epochs), peak learning rate "
        f"{run.peak_rate:g}"
    )
    for line in changed:
        say(f"note: changed since this run was started: {line}")
    done = int(state.step)
    if done == run.steps:
        say(f"already finished at step {done}")
    else:
        say(f"starting at step {done}" if done else "starting afresh")


def loop(config, run, source, state, evals, log, checkpoints, clock, asked):
    """Steps until the end or until a signal asks to stop; returns the state, saved."""
    key = jax.device_put(jax.random.key(config.seed), run.program.replicated)
    start = int(state.step)
    batches = open_batches(config, source, start)
    meter = Meter(start)
    for done in range(start + 1, run.steps + 1):
        if asked:
            break
        with meter.waiting():
            batch = next(batches)
        batch = step.put_batch(batch, run.mesh)
        with jax.transfer_guard("disallow"):
            state, metrics = run.program.step(state, batch, key)
        log.advance()
        if done == start + 1:
            jax.block_until_ready(metrics)
            log.say(f"first step, with compilation: {meter.seconds():.1f} s")
            meter = Meter(done)

        last = done == run.steps
        if done % config.log_every == 0 or last:
            metrics = jax.device_get(metrics)
            check_finite(metrics["train/loss"], done)
            metrics |= meter.read(done, config.batch_size)
            metrics |= {
                "epoch": done / run.steps_per_epoch,
                "examples_seen": done * config.batch_size,
                "data/broken_images": len(source.broken),
            }
            log.write(done, metrics)
            log.say(console_line(done, run.steps, metrics))
            meter = Meter(done)
        if due := evals.due(done, last):
            results = evals.evaluate(state, due)
            log.write(done, results)
            log.say(results_line(results))
            meter = Meter(done)
        if done % config.checkpoint_every == 0:
            check_finite(jax.device_get(metrics["train/loss"]), done)
            checkpoints.save(state, clock())
    if start == int(state.step) < run.steps:  # stopped before the first step
        checkpoints.save(state, clock())
    elif int(state.step) > start:
        check_finite(jax.device_get(metrics["train/loss"]), int(state.step))
        checkpoints.save(state, clock())
    return state


def open_batches(config, source, start):
    """This process's training batches from step `start` on."""
    data = config.data
    return pipeline.train_batches(
        source,
        batch_size=config.batch_size,
        size=tuple(data.size),
        pad=data.pad,
        crop=tuple(data.crop),
        ratio=tuple(data.ratio),
        flip=data.flip,
        interpolation=data.interpolation,
        resize=data.resize,
        seed=config.seed,
        start_step=start,
        shard=(jax.process_index(), jax.process_count()),
        threads=data.threads or None,
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
