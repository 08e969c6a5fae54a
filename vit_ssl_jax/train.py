"""From a config and a workdir to a trained encoder, resumable at any step."""

import contextlib
import functools
import os
import time

import jax
from ml_collections import ConfigDict

import vit_ssl_jax
from vit_ssl_jax import (
    album,
    arguments,
    build,
    console,
    feeds,
    fit,
    host,
    loop,
    pretrained,
    starting,
    train_data,
)
from vit_ssl_jax.closing import say_closing
from vit_ssl_jax.data import from_python
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.distributed.signals import stop_on_signal
from vit_ssl_jax.doctor import once
from vit_ssl_jax.evaluators import suite, summary
from vit_ssl_jax.monitors import finite, health, online
from vit_ssl_jax.workdir import folder, lock
from vit_ssl_jax.workdir.metrics import Writer, read_metrics
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
    host.prepare()
    with stop_on_signal() as stop_requested:
        workdir = folder.open_workdir(workdir)
        with lock.hold(workdir, console.say) as held:
            return run_to_end(config, workdir, stop_requested, data, held)


def run_to_end(config, workdir, stop_requested, data=None, held=None):
    """Builds what the loop needs, runs it, says how it ended; returns as `train`."""
    begun = time.perf_counter()
    config = config.copy_and_resolve_references()
    inherited = pretrained.inherit(config, workdir)
    open_source, source, lines = train_data.open_run(config, data)
    lines += inherited + train_data.keep_pixels(config, workdir)
    card, about = train_data.make_card(config, source)
    source, loaded, kept = feeds.keep(config, source)
    lines += about + kept
    cache.use_cache()
    run = once.check_kernels(config, build.make_run(config), console.say)
    opening = dict(say=lines.append, open_source=open_source)
    evals = suite.Suite(config, run, labelled=source.num_classes > 0, **opening)
    probe = online.Probe(config, run, functools.partial(build.step_flops, config))
    pictures = album.Album(config, run, source, open_source, workdir)
    lines += pictures.lines
    run, open_feed = feeds.choose(config, run, source, loaded)
    console.introduce(config, run, dict.fromkeys([*lines, probe.line]))
    begin = starting.begin(config, run, probe, evals.names, workdir)
    checkpoints, ready, start = begin.checkpoints, begin.ready, int(begin.state.step)
    done = start == run.steps
    changed = folder.write_config(config, workdir, vit_ssl_jax.__version__, done)
    changed += train_data.write_card(None if done else card, workdir)
    pictures.cut_back(start)
    log = Writer(workdir, start=start, steps=run.steps, config=config)
    with contextlib.closing(log), fit.explained(config, run, ready):
        console.say_start(run, start, begin.notes, changed)
        processes.wait_for_all("metrics.jsonl is cut back")
        session = loop.Session(
            config=config,
            run=run,
            ready=ready,
            source=source,
            open_feed=open_feed,
            evals=evals,
            probe=probe,
            monitor=health.Monitor(config, run, read_metrics(workdir, "ssl/")),
            album=pictures,
            watch=finite.Watch(config, workdir, begin, log.say),
            checkpoints=checkpoints,
            best=begin.best,
            log=log,
            lock=held,
            clock=console.Clock(begun, begin.seconds),
            stop_requested=stop_requested,
        )
        with contextlib.closing(session):
            state = loop.run_steps(session, begin.state)
        return finish(session, state, workdir)


def finish(s, state, workdir):
    """Says how the loop ended; returns the closing summary where one is wanted."""
    if s.source.broken:
        s.log.say(f"{len(s.source.broken)} broken images were replaced by others")
    done = int(state.step)
    if done < s.run.steps:
        s.log.say(f"stopped at step {done}, saved; the same command continues")
        return None
    out, closing = None, s.config.summary and s.evals.names
    if closing and s.stop_requested and jax.process_count() == 1:
        s.log.say("stopped before the closing table; the same command makes it")
        return None
    if closing:
        out = summary.report(
            s.evals,
            state,
            s.run.program.init(jax.random.key(s.config.seed)),
            workdir=workdir,
            seconds=s.clock,
            say=s.log.say,
        )
    if s.best and s.best.value is not None:
        s.log.say(s.best.line())
    say_closing(s.config, s.run, s.source, state, workdir=workdir, say=s.log.say)
    return out
