"""The start of a run: its step compiled and found to fit, then its first state."""

import dataclasses
from typing import Any

import jax

from vit_ssl_jax import console, fit, partition, skipping
from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.pretrained import check_encoder, init_encoder
from vit_ssl_jax.workdir import best, checkpoint, restore


@dataclasses.dataclass(frozen=True)
class Start:
    """What a loop starts with."""

    checkpoints: checkpoint.Checkpoints
    best: best.Best | None  # of `config.keep_best`
    ready: fit.Ready | None  # the step; None: none is left to do
    state: Any
    seconds: float  # of the run before
    notes: list  # what to say of the state


def begin(config, run, probe, evaluators, workdir):
    """The `Start` of a run in `workdir`: of its newest whole checkpoint, or afresh.

    The step is compiled before there is an array on the devices; `evaluators` are the
    names of those that are on. Raises UserError where it doesn't fit, and for a
    checkpoint of another model or beyond the run's end.
    """
    ready, rule = None, config.get("keep_best", "")  # older recipes don't say
    check_best(rule, evaluators)
    check_every(config)
    if config.init_from and not newest_step(workdir):
        try:
            check_encoder(config.init_from, run.encoder)
        except UserError as error:
            raise UserError(f"config.init_from: {error}") from error
    if is_unfinished(run, workdir):
        ready = fit.compile_step(config, run, console.say)
    with fit.explained(config, run, ready):
        every = config.get("keep_every", 0)  # older recipes don't say
        checkpoints = checkpoint.Checkpoints(workdir, config.keep, every)
        state, seconds, notes = first_state(config, run, probe, checkpoints)
        done = int(jax.block_until_ready(state).step)
    if done > run.steps:
        raise UserError(
            f"{workdir} is at step {done}, beyond the {run.steps} steps of the config; "
            "raise config.epochs or config.steps, or give a new --workdir"
        )
    if done < run.steps and not ready:  # the newest checkpoint is damaged
        ready = fit.compile_step(config, run, console.say)
    kept = best.Best(workdir, rule) if rule else None
    return Start(checkpoints, kept, ready, state, seconds, notes)


def check_best(rule, evaluators):
    """Raises UserError where no evaluator that is on measures `config.keep_best`."""
    name = rule.split("/")[1] if rule else ""
    if rule and name not in evaluators:
        raise UserError(
            f"config.keep_best: {rule!r} is never measured, for no evaluator {name} is "
            f"on; on are {', '.join(evaluators) or 'none'} (--config.keep_best=: keep "
            "the last checkpoints alone)"
        )


def check_every(config):
    """Raises UserError where `config.keep_every` names steps that aren't saved."""
    every, saved = config.get("keep_every", 0), config.checkpoint_every
    if every % saved:
        raise UserError(
            f"config.keep_every: {every} is no multiple of checkpoint_every={saved}; set "
            f"it to {max(every // saved, 1) * saved}"
        )


def is_unfinished(run, workdir):
    """Whether steps are left to do, as far as the names of checkpoints tell."""
    return processes.any_process(newest_step(workdir) < run.steps)


def newest_step(workdir):
    """Step of the newest checkpoint by its name; 0 where there is none."""
    try:
        return int(restore.find_folder(workdir).name)
    except UserError:
        return 0


def make_key(seed, program):
    """The run's key, on all devices."""
    data = partition.put(jax.random.key_data(jax.random.key(seed)), program.replicated)
    return jax.random.wrap_key_data(data)


def first_state(config, run, probe, checkpoints):
    """The state to start from, the run's seconds before it, and what to say about it.

    A checkpoint without online probes, or with ones that aren't wanted any more, fits;
    so does one with or without what is remembered of steps left out.
    """
    bare, lines = run.program.state, []
    likes = find_likes(run, probe)
    found = checkpoints.restore(*likes, whole=checkpoint.is_finite)
    state, seconds = found or (None, 0.0)
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
    if bare.skips and not state.skips:
        fresh = jax.device_get(skipping.fresh())
        fresh = partition.put(fresh, run.program.replicated)
        state = state.replace(skips=fresh)
    elif state.skips and not bare.skips:
        state = state.replace(skips={})
    if int(state.step) < run.steps:
        checkpoints.try_room(state)
    return state, seconds, lines


def find_likes(run, probe):
    """Shapes of the states that a run can start from, the best first."""
    bare = run.program.state
    memory = jax.eval_shape(skipping.fresh)
    memory = partition.laid_out(memory, run.program.replicated)
    probes = [probe.like, {}] if probe.images else [{}, probe.like]
    skips = [memory, {}] if bare.skips else [{}, memory]
    return [bare.replace(probe=p, skips=m) for m in skips for p in probes]
