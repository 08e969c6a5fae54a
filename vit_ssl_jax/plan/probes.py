"""A linear probe planned like a run that trains: its step for devices elsewhere.

The step is the very one of `evaluate`: a batch through the frozen encoder, in pieces, and
the update of all heads of the grid.
"""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp

from vit_ssl_jax import (
    build,
    evaluators,
    finished,
    memory,
    partition,
    recipes,
    step,
    tasks,
)
from vit_ssl_jax.data import source
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import features
from vit_ssl_jax.evaluators.probe import feeds, programs, sweep, train
from vit_ssl_jax.models.readouts import check_readout
from vit_ssl_jax.xla import flops

COPIES = 2  # of a batch's images once it goes in pieces, as compiled for v5e
OTHERWISE = "mae"  # whose encoder is taken where a probe is by another's protocol


@dataclasses.dataclass(frozen=True)
class Run:
    """What `plan.plan` asks of a `build.Run`."""

    mesh: Any
    steps: int
    program: step.Program
    flops: float  # model FLOPs an image
    name: str  # the probe's in config.evals


def make_run(config, encoder, devices, say):
    """The `Run` of a suite's probe, and a config that has its sizes as a recipe's.

    encoder: the recipe that trains the encoder; "": the published one of the probe's
    method and size, and a line says which. Raises UserError where there is no probe on
    augmented images, and for what doesn't fit.
    """
    name, task, c = find_probe(config)
    trained = load_encoder(config, encoder, say)
    mesh = partition.make_mesh(config.mesh, devices)
    grid = sweep.Config(**{key: getattr(c, key) for key in sweep.FIELDS})
    images, classes = count(task, trained)
    steps = train.count_steps(grid, images)
    try:
        train.check_batch(grid, mesh)
        model = finished.resized(
            build.make_model(trained, mesh), tuple(task.size or trained.data.size)
        )
        for readout in grid.readouts:
            check_readout(readout, model.encoder.depth, model.encoder.cls)
    except UserError as error:
        key = str(error).partition(":")[0]
        where = f"config.evals.{name}." if key in vars(c) else ""
        raise UserError(f"{where}{error}") from error
    program = make_program(grid, model, classes, steps)
    per_image = count_flops(grid, trained, model.size, classes)
    planned = trained.copy_and_resolve_references().unlock()
    planned.recipe, planned.mesh = config.recipe, config.mesh
    planned.batch_size, planned.accum = grid.batch_size, grid.accum
    planned.data.num_examples = images
    return planned, Run(mesh, steps, program, per_image, name)


def find_probe(config):
    """The suite's probe on augmented images: `(name, its task, its settings)`."""
    task = next(iter(config.tasks.values()))
    evals, _ = tasks.choose_evaluators(config, task)
    for name, settings in evals.items():
        if evaluators.kind(name) == "probe" and settings["augment"]:
            return name, task, evaluators.read_config(name, settings)
    raise UserError(
        f"--config: {config.recipe} judges checkpoints; plan takes what trains: a recipe, "
        "or a suite with a probe on augmented images (configs/probe_NAME.py)"
    )


def load_encoder(config, encoder, say):
    """The recipe of the encoder that a suite judges."""
    if not encoder:
        suite, _, protocol = config.recipe.partition(":")
        size = suite.partition("_")[2]  # "vitl" of "probe_vitl"
        encoder = f"{protocol}_{size}.py"
        try:
            recipes.find(encoder)
        except UserError:
            encoder = f"{OTHERWISE}_{size}.py"
        say(f"encoder: that of {encoder}; another by --encoder=configs/NAME.py")
    trained = recipes.load(encoder)
    if "tasks" in trained:
        raise UserError(
            f"--encoder={encoder} trains no encoder; give a recipe that does"
        )
    trained = trained.copy_and_resolve_references().unlock()
    recipes.fill(trained, {})
    if config.variant not in ("", trained.vit.variant):
        raise UserError(
            f"--encoder={encoder} is a ViT-{trained.vit.variant}, and {config.recipe} "
            f"judges {config.variant}; give another, or --config.variant="
        )
    return trained


def count(task, trained):
    """Images that a task's probe learns from, and its classes.

    By what the encoder's recipe says of its data where that is the same set, else by
    the set itself. Raises UserError where neither knows.
    """
    if task.set == trained.data.name:
        whole = trained.data.num_examples

        def open_whole(name):
            return source.Source(name, whole, lambda i: None, str)

        return len(source.cut(task.train, open_whole)), trained.data.num_classes
    try:
        there = tasks.opener(task)(task.set, task.dir, task.train, label=task.label)
    except UserError as error:
        raise UserError(
            f"the images and classes of {task.set} aren't known: {error}; or give the "
            f"--encoder whose recipe trains on {task.set}"
        ) from error
    return len(there), there.num_classes


def make_program(grid, model, classes, steps):
    """The probe's step as a `step.Program` whose state is `(heads, encoder)`."""
    mesh, params = model.mesh, model.encoder_shapes
    feed = feeds.augmented(grid, model.encoder, params, model.normalize, None, 0)
    init, update = programs.make_programs(
        grid,
        feed.read,
        widths=find_widths(grid, model),
        classes=classes,
        steps=steps,
        mesh=mesh,
    )
    whole = partition.replicated(mesh)
    state = partition.laid_out(jax.eval_shape(init), whole)

    def lower(state, batch, key):
        del key  # the heads draw nothing
        with jax.set_mesh(mesh):
            return update.lower(state[0], batch, state[1])

    return step.Program(
        init=init,
        step=types.SimpleNamespace(lower=lower),
        plain_step=None,
        state=(state, params),
        batch=step.batch_shapes(
            grid.batch_size, model.size, partition.batch_sharding(mesh)
        ),
        replicated=whole,
    )


def find_widths(grid, model):
    """Lengths of the features, `{readout: F}`."""
    read = features.make_reader(model.encoder, model.normalize, grid.readouts)
    ways = partition.ways(model.mesh)
    image = jax.ShapeDtypeStruct((ways, *model.size, 3), jnp.uint8)
    with jax.set_mesh(model.mesh):
        found = jax.eval_shape(read, model.encoder_shapes, image)
    return {readout: x.shape[-1] for readout, x in found.items()}


def count_flops(grid, trained, size, classes):
    """Model FLOPs an image: the encoder forward, the heads forward and backward."""
    plain = trained.copy_and_resolve_references()
    plain.vit.update(dict(kernels="plain", dtype="float32", remat="none"))
    one = partition.make_mesh(dict(data=1, fsdp=1, tensor=1), jax.local_devices()[:1])
    model = finished.resized(build.make_model(plain, one), size)
    whole = dataclasses.replace(grid, accum=1)
    params = bare(model.encoder_shapes)
    feed = feeds.augmented(whole, model.encoder, params, model.normalize, None, 0)
    init, _ = programs.make_programs(
        whole,
        feed.read,
        widths=find_widths(whole, model),
        classes=classes,
        steps=1,
        mesh=one,
    )
    batch = bare(step.batch_shapes(grid.batch_size, size, None))

    def update(state, batch, params):
        return programs.learn_batch(whole, feed.read, 1, state, batch, params)

    return flops.count(update, jax.eval_shape(init), batch, params) / grid.batch_size


def bare(shapes):
    """Shapes without shardings."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)


def advise(run, need, limit, batch_size, accum):
    """Pieces with which a device takes at most `limit` bytes: `{flags, bytes, how}`, or None.

    By proportion: temporaries are those of a piece, but for the parameters as they are
    multiplied, in half the bytes, and the images of all pieces (COPIES).
    """
    each = batch_size // partition.ways(run.mesh)
    kept = memory.shard_bytes(run.program.state[1]) // 2
    images = COPIES * memory.shard_bytes(run.program.batch)
    of_piece = max(need.temporaries - kept - images * (accum > 1), 0) * accum
    for pieces in range(accum + 1, each + 1):
        total = need.arguments + need.outputs + kept + images + of_piece // pieces
        if each % pieces == 0 and total <= limit:
            flags = f"--config.evals.{run.name}.accum={pieces}"
            return dict(flags=flags, bytes=total, how="by proportion")
    return None
