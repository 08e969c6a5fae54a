"""A step of a run made again, on one CPU device, from what its capsule says."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vit_ssl_jax import build, feeds, finished, starting, train_data
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.monitors import finite, online
from vit_ssl_jax.replay import operations, origins
from vit_ssl_jax.workdir import capsule, checkpoint, restore
from vit_ssl_jax.workdir.folder import find


@dataclasses.dataclass(frozen=True)
class Saved:
    """The checkpoint that a replay starts from, as `starting.first_state` asks for it."""

    folder: Any  # None: there is none

    def restore(self, *likes, whole=None):
        """Reads `(state, seconds)`, or None. Nothing is set aside."""
        del whole
        if self.folder is None:
            return None
        shapes = restore.read_shapes(self.folder)
        like = next((x for x in likes if shapes == restore.shapes_of(x)), None)
        if like is None:
            wanted = restore.shapes_of(likes[0])
            raise UserError(restore.mismatch(self.folder, shapes, wanted))
        state, seconds, _ = checkpoint.read(self.folder, like)
        return state, seconds

    def try_room(self, state):
        """Nothing is saved."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """A step as it is about to be taken, and what came of it."""

    number: int
    state: Any  # before it
    batch: Any
    why: str  # it isn't taken; "": it is
    spike: bool


def replay(path, data=None, say=print):
    """Makes the step of a capsule again and says what of it isn't finite.

    path: `WORKDIR/capsules/step-N.json`. data: given again where the run was given it
    (`train.train`). From the last checkpoint before it, which may be older than the
    capsule's, or from the run's start, the steps in between are taken in their order, on
    the same images. Returns `{"step", "why", "operation", "float32"}`: why the step isn't
    taken, "" where it is; the `origins.Operation` it began with, or None; and whether
    the step is finite in float32 (None: not asked).

    Raises UserError where the capsule, its checkpoint or its images can't be read.
    """
    content = capsule.read(path)
    config = make_config(content)
    open_source, source, _ = train_data.open_run(config, data)
    del open_source
    source, loaded, _ = feeds.keep(config, source)
    devices = jax.local_devices(backend="cpu")[:1]
    plain = build.make_run(config, devices)
    run, open_feed = feeds.choose(config, plain, source, loaded)
    folder = find_checkpoint(path, content)
    state, words = first_state(config, run, folder)
    say(f"from {words}, on one CPU device, {config.vit.dtype}")
    theirs = content.get("versions", {}).get("jax", jax.__version__)
    if theirs != jax.__version__:
        say(f"note: the run had jax {theirs}, here it is {jax.__version__}")
    found = take_steps(config, run, open_feed, state, content, say)
    out = {"step": found.number, "why": found.why, "operation": None, "float32": None}
    if not found.why:
        say(
            f"step {found.number} is finite here; the run said: {content['why']}. Other "
            "devices round in another order, and a run whose config changed between the "
            "checkpoint and the capsule took other steps"
        )
        return out
    say(f"step {found.number}: {found.why}")
    if found.spike:
        return out
    out["operation"] = find_operation(config, devices, found)
    for line in describe(out["operation"]):
        say(line)
    out["float32"] = why = None
    if config.vit.dtype != "float32":
        why = try_float32(config, devices, found)
        out["float32"] = not why
        said = f"isn't finite either: {why}" if why else "is finite"
        say(f"in float32 (--config.vit.dtype=float32) the step {said}")
    return out


def make_config(content):
    """The run's config for one device, without worker processes and online probes."""
    config = ConfigDict(finished.as_tuples(content["config"]))
    config.mesh = finished.MESH | {"data": 1}
    config.data.workers, config.online.share = 0, 0.0
    if config.vit.kernels == "fused":
        config.vit.kernels = "plain"
    return config


def find_checkpoint(path, content):
    """The folder of the newest checkpoint before the capsule's step; None: there is none.

    In the workdir that the capsule is in, or else the one that it names.
    """
    for home in (find(path).parent.parent, find(content["workdir"])):
        root = home / "checkpoints"
        names = [p.name for p in root.iterdir()] if root.is_dir() else []
        steps = [int(name) for name in names if name.isdecimal()]
        if steps := [n for n in steps if n < content["step"]]:
            return root / str(max(steps))
    return None


def first_state(config, run, folder):
    """The state to begin with, and what it is in words."""
    probe = online.Probe(config, run, None)
    state, _, _ = starting.first_state(config, run, probe, Saved(folder))
    step = int(state.step)
    return state, f"{folder} (step {step})" if folder else "the run's start"


def take_steps(config, run, open_feed, state, content, say):
    """Takes steps up to the capsule's, or to one that ends a run: its `Moment`."""
    key = starting.make_key(config.seed, run.program)
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    feed = open_feed(int(state.step))
    try:
        for number in range(int(state.step) + 1, content["step"] + 1):
            before, fed = copy(state), feed.put(feed.take(1))
            state, metrics, *last = run.program.step(state, fed, key)
            (batch,) = last or [fed]
            found = {
                name: float(value)
                for name, value in jax.device_get(metrics).items()
                if name in finite.JUDGED or name.startswith("skips/")
            }
            why = finite.reason(found)
            if not why and not checkpoint.is_finite(state):
                why = finite.POISONED
            if why and state.skips and number < content["step"]:
                say(f"step {number} is left out here, too: {why}")
            elif why or number == content["step"]:
                break
    finally:
        feed.close()
    images = content.get("images")
    if number == content["step"] and images and images != batch["id"].tolist():
        say("note: its images are others than the run's; is the data the same?")
    return Moment(number, before, batch, why, finite.is_spike(found))


def bare_run(config, devices, **changes):
    """The run of a config with other `config.vit`, in which no step is left out."""
    config = config.copy_and_resolve_references()
    config.vit.update(changes)
    for name, policy in (("nonfinite", "stop"), ("spike", "off")):
        if name in config:
            config[name].policy = policy
    return build.make_run(config, devices)


def find_operation(config, devices, moment):
    """The `origins.Operation` that a step's loss, norm or parameters come from."""
    run = bare_run(config, devices)
    key = starting.make_key(config.seed, run.program)
    state = moment.state.replace(skips={}, probe={})
    step = run.program.plain_step
    _, (after, metrics) = operations.evaluate(step, state, moment.batch, key)
    judged = [metrics["train/loss"], metrics["train/grad_norm"]]
    kept = (after.params, after.opt_state, after.ema)
    return origins.first([*judged, *jax.tree.leaves(kept)])


def try_float32(config, devices, moment):
    """Why a step isn't taken in float32; "": it is."""
    run = bare_run(config, devices, dtype="float32")
    key = starting.make_key(config.seed, run.program)
    state = moment.state.replace(skips={}, probe={})
    after, metrics = jax.jit(run.program.plain_step)(state, moment.batch, key)
    found = {name: float(metrics[name]) for name in finite.JUDGED[:2]}
    why = finite.reason(found)
    return why or ("" if checkpoint.is_finite(after) else finite.POISONED)


def describe(operation):
    """Lines about an operation."""
    if operation is None:
        return [
            "operation by operation all is finite: the compiled step rounds otherwise"
        ]
    op = operation
    what = "the first that isn't finite"
    if op.given:
        what = (
            "the first that a number in the config or the code, not finite, goes into"
        )
    shapes = f"{', '.join(op.inputs)} -> {', '.join(op.outputs)}"
    lines = [f"{what}: {op.name} of {shapes} ({op.result})"]
    if op.file:
        lines.append(f"  {op.place}, in {op.function}: {op.source}")
    if op.scope:
        lines.append(f"  within {op.scope}")
    if op.iterations:
        lines.append(f"  iterations of the loops around it: {', '.join(op.iterations)}")
    return lines
