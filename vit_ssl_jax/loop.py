"""The loop of a run: steps, and what is written, measured and saved in between."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vit_ssl_jax import album, build, console, fit, starting
from vit_ssl_jax.distributed.signals import PATIENCE, Late, may_be_left, stop_now
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import suite
from vit_ssl_jax.monitors import finite, health, online
from vit_ssl_jax.workdir import best, checkpoint, lock
from vit_ssl_jax.workdir.metrics import Meter, Writer

SPAN = 5.0  # seconds that a call of several steps takes at most: a signal waits for it


@dataclasses.dataclass(kw_only=True)
class Session:
    """What the loop works with."""

    config: Any
    run: build.Run
    ready: fit.Ready | None  # its step, compiled; None: no step is left to do
    source: Any  # of images
    open_feed: Callable  # (first step) -> feeds.Feed
    evals: suite.Suite
    probe: online.Probe
    monitor: health.Monitor
    album: album.Album
    watch: finite.Watch
    checkpoints: checkpoint.Checkpoints
    best: best.Best | None  # kept beside them by `config.keep_best`
    log: Writer
    lock: lock.Lock | None  # of the workdir, on process 0
    clock: Callable  # () -> seconds of the run, over all its sessions
    stop_requested: Any  # of `signals.stop_on_signal`

    def close(self):
        """Waits for the last checkpoints and raises their error, if any."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.checkpoints.close)
            if self.best:
                stack.callback(self.best.close)


def run_steps(s, state):
    """Steps until the end or until a signal asks to stop; returns the state, saved."""
    start = int(state.step)
    if s.best and s.best.value is None and start < s.run.steps:
        measure_first(s, state)
    if start == 0 and s.album.due(start, False):
        s.album.draw(state, s.log)
    with contextlib.closing(s.open_feed(start)) as feed:
        state = take_steps(s, state, feed)
    if start < s.run.steps:  # and not finished before
        save(s, state)
    return state


def take_steps(s, state, feed):
    """Steps on what `feed` gives as `run_steps` does; returns the state."""
    config, run, log = s.config, s.run, s.log
    key = starting.make_key(config.seed, run.program)
    start = int(state.step)
    meter, paces, took = Meter(start), [0.0], None
    # Where steps may be left out each is looked at with its own numbers.
    most = 1 if state.skips else feed.most
    for count, done in spans(s, start, lambda: most_steps(most, paces[0])):
        with meter.waiting():
            made = take(s, state, feed, count)
        if made is None:
            return state
        state, metrics, batch = advance(s, state, feed.put(made), key, done)
        log.advance(count)
        took = s.checkpoints.check() or took
        s.watch.note(done, metrics, batch)
        if done == start + 1:
            jax.block_until_ready((metrics, state.probe))
            seconds = s.ready.seconds + meter.seconds()
            log.say(f"first step, with compilation: {seconds:.1f} s{s.ready.remark}")
            meter = Meter(done)

        last = done == run.steps
        if done % config.log_every == 0 or last:
            write_metrics(s, state, metrics, meter, done)
            paces[:] = [meter.seconds_a_step(done)]
            if took:
                log.say(console.save_line(took, paces[0]))
                took = None
            meter = Meter(done)
        if s.monitor.due(done):
            watch_health(s, state, batch, key, done)
            meter = Meter(done)
        if due := s.evals.due(done, last):
            s.watch.check(state)
            with fit.explained(config, run, s.ready, evaluating=True):
                results = s.evals.evaluate(state, due)
            log.write(done, results)
            log.say(console.results_line(results))
            if s.best:
                s.best.offer(state, results)
            meter = Meter(done)
        if s.album.due(done, last):
            s.album.draw(state, log)
            meter = Meter(done)
        if done % config.checkpoint_every == 0:
            save(s, state)
    return state


def take(s, state, feed, count):
    """What `feed` makes for so many steps; None where a signal came and it doesn't.

    A UserError of the data leaves the state saved where this process is alone.
    """
    try:
        with may_be_left(s.stop_requested):
            return feed.take(count)
    except Late:
        s.log.say(f"the next images aren't there {PATIENCE:g} s after the signal")
        return None
    except UserError:
        if jax.process_count() == 1 and int(state.step):
            save(s, state)
        raise


def measure_first(s, state):
    """Measures the metric of `config.keep_best` before the first step, and says it.

    Raises UserError where its evaluator gives no such metric.
    """
    with fit.explained(s.config, s.run, s.ready, evaluating=True):
        results = s.evals.evaluate(state, [s.best.evaluator])
    s.best.check(results)
    value = results[s.best.metric]
    s.log.say(f"{s.config.keep_best} is kept, {value:.4f} at step {int(state.step)}")


def most_steps(most, pace):
    """Steps of a call: `most`, but no more than SPAN seconds at `pace` seconds a step.

    Processes that are several take equally many, whatever their clocks say.
    """
    if not pace or jax.process_count() > 1:
        return most
    return max(1, min(most, int(SPAN / pace)))


def spans(s, start, most):
    """Yields steps to take in one go, up to `most()`: `(how many, the last of them)`.

    What a step is followed by ends a span, and so does a signal, which ends all.
    """
    before = start
    for done in range(start + 1, s.run.steps + 1):
        if stop_now(s.stop_requested, done):
            if before < done - 1:
                yield done - 1 - before, done - 1
            return
        if done - before >= most() or done == start + 1 or is_due(s, done):
            yield done - before, done
            before = done


def is_due(s, done):
    """Whether something is to be done after step `done`."""
    last = done == s.run.steps
    every = s.config.log_every, s.config.checkpoint_every
    return (
        any(done % n == 0 for n in every)
        or s.monitor.due(done)
        or s.probe.due(done)
        or bool(s.evals.due(done, last))
        or s.album.due(done, last)
        or last
    )


def save(s, state):
    """Begins a checkpoint; the metrics up to its step are in the workdir by then.

    Raises UserError where another process has taken the workdir over, and for a state
    that isn't finite.
    """
    if s.lock:
        s.lock.check()
    s.watch.check(state)
    s.log.flush()
    s.checkpoints.save(state, s.clock())


def advance(s, state, fed, key, done):
    """Steps up to `done`, then the online probes, which the step's program never sees.

    Returns the state, and metrics and batch of the last step.
    """
    probe = state.probe
    with jax.transfer_guard("disallow"):
        state, metrics, *last = s.ready.call(state.replace(probe={}), fed, key)
        (batch,) = last or [fed]  # which a span picks on the devices
        taken = metrics.get("skips/taken")
        state = s.probe.after(state.replace(probe=probe), batch, done, taken)
    return state, metrics, batch


def write_metrics(s, state, metrics, meter, done):
    """Writes what the step and the online probes say, and the speed."""
    s.watch.look()
    metrics = {k: v for k, v in metrics.items() if not k.startswith("skips/")}
    metrics = jax.device_get(metrics | s.probe.metrics(state, done))
    metrics |= meter.read(done, s.config.batch_size) | {
        "epoch": done / s.run.steps_per_epoch,  # passes over the training images
        "examples_seen": done * s.config.batch_size,  # images, each time counted
        # files that can't be read so far; another image stands in for each
        "data/broken_images": len(s.source.broken),
        "perf/hours": s.clock() / 3600,  # hours of the run, restarts included
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
        save(s, state)
        raise UserError(
            f"stopped at step {done} and saved, for config.health.policy is 'stop': "
            f"{alarm}; --config.health.policy=warn goes on from there regardless"
        )
