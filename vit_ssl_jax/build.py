"""Builds a run's functions from a config: no data, no devices' memory, no files."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vit_ssl_jax import (
    freezing,
    methods,
    optim,
    own,
    partition,
    recipes,
    skipping,
    step,
)
from vit_ssl_jax.checks import check_config
from vit_ssl_jax.data import augment
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images
from vit_ssl_jax.xla import flops


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained, on a mesh: no optimiser, no program."""

    steps: int  # of the whole run
    mesh: jax.sharding.Mesh
    size: tuple  # of the images that training gets, pixels
    normalize: Callable  # image in [0, 1] -> standardised image
    method: methods.Method

    @property
    def encoder(self):
        """The ViT that downstream tasks use."""
        return self.method.model.encoder

    def encoder_params(self, state: Any):
        """The encoder's parameters (I-JEPA's teacher's, all others' student's)."""
        return self.method.encoder(state.params, state.ema)

    @functools.cached_property
    def shapes(self):
        """Shapes `(params, ema)` as ShapeDtypeStructs with their shardings."""
        ways, sharding = partition.ways(self.mesh), partition.batch_sharding(self.mesh)
        batch = step.batch_shapes(ways, self.size, sharding)
        init = functools.partial(step.init_model, method=self.method)
        return initial_shapes(init, self.mesh, batch)

    @functools.cached_property
    def encoder_shapes(self):
        """The encoder's parameters as ShapeDtypeStructs with their shardings."""
        image = jax.ShapeDtypeStruct((1, *self.encoder.size, 3), jnp.float32)

        def init(key, image):
            return self.encoder.init(key, image, False)

        return initial_shapes(init, self.mesh, image)["params"]


@dataclasses.dataclass(frozen=True)
class Run(Model):
    """A model with what trains it: its numbers and its compiled program."""

    steps_per_epoch: float
    peak_rate: float
    program: step.Program


def initial_shapes(init, mesh, example):
    """ShapeDtypeStructs of `init(key, example)` with the shardings of parameters."""
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(init, step.key_shape(), example)
    return partition.laid_out(shapes, partition.shardings(shapes, mesh))


def make_model(config, mesh):
    """Builds the `Model` of a config on a mesh; raises UserError for a choice in it.

    Of the config it reads `method`, `vit`, `data` and how long it is trained.
    """
    data = config.data
    mean_std = (tuple(data.mean), tuple(data.std))
    normalize = functools.partial(images.normalize, mean=mean_std[0], std=mean_std[1])
    context = methods.Context(
        vit=functools.partial(vit.make_vit, config.vit, tuple(data.size)),
        normalize=normalize,
        mean_std=mean_std,
        steps=count_steps(config),
        epochs=config.epochs,
        num_classes=data.num_classes,
    )
    method = methods.make(config.method.to_dict(), context)
    check_tensor(method.model, mesh)
    size = augment.train_size(data)
    if size != tuple(data.size) and not method.crops:
        raise UserError(
            f"config.data.train_size: {config.method.name} cuts no crops, its images are "
            f"config.data.size={tuple(data.size)}; set it to ()"
        )
    return Model(context.steps, mesh, size, normalize, method)


def make_run(config, devices=None):
    """Builds the `Run` of a config, every choice checked; raises UserError.

    `devices` are the ones at hand unless given (a TPU topology's, say).
    """
    kind = (devices or jax.devices())[0].platform
    recipes.fill(config, {})
    own.choose(config, config.data.num_examples, own.class_of(kind, None))
    check_config(config)
    mesh = partition.make_mesh(config.mesh, devices)
    check_batch(config, mesh)
    model = make_model(config, mesh)
    optimizer = optim.make_optimizer(
        config.optim,
        steps=model.steps,
        epochs=config.epochs,
        batch_size=config.batch_size,
        frozen=model.method.frozen,
    )
    blocks = config.optim.get("train_blocks", -1)
    optimizer = freezing.freeze(optimizer, blocks, model.encoder.depth)
    program = step.make_program(
        model.method,
        optimizer,
        mesh,
        batch_size=config.batch_size,
        size=model.size,
        accum=config.accum,
        rules=skipping.read_rules(config),
    )
    return Run(
        **{f.name: getattr(model, f.name) for f in dataclasses.fields(model)},
        steps_per_epoch=config.data.num_examples / config.batch_size,
        peak_rate=optim.peak_rate(config.optim, config.batch_size),
        program=program,
    )


def count_steps(config):
    """Number of steps of a whole run; raises UserError where its epochs hold none."""
    images, batch_size = config.data.num_examples, config.batch_size
    steps = config.steps or int(config.epochs * (images // batch_size))
    if steps < 1:
        raise UserError(
            f"config.epochs: {config.epochs:g} epochs of {images} images in "
            f"batches of {batch_size} (config.batch_size) are no step; raise the "
            "one, lower the other, or set config.steps"
        )
    return steps


def step_flops(config, devices=None):
    """Model FLOPs of an optimiser step: int, of all devices together.

    Those of the plain form on unpadded tokens, so devices and their kernels, what is
    computed again (`config.vit.remat`) and accumulation change nothing.
    """
    config = config.copy_and_resolve_references()
    config.vit.remat, config.vit.kernels, config.accum = "none", "plain", 1
    config.vit.dtype = "float32"  # in bfloat16 a CPU computes some of it again
    run = make_run(config, devices)
    shapes = run.program.state, run.program.batch
    state, batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes
    )
    return flops.count(run.program.plain_step, state, batch, step.key_shape())


def check_batch(config, mesh):
    """Raises UserError unless the batch divides over mesh x accumulation."""
    words = f"(mesh data x fsdp) x {config.accum} micro-batches (config.accum)"
    size = config.batch_size
    partition.check_batch("config.batch_size", size, mesh, config.accum, words)


def check_tensor(model, mesh):
    """Raises UserError unless tensor parallelism divides the encoder's heads.

    With several processes it has to divide the devices of each, too, for every process
    has images of its own.
    """
    ways, heads = mesh.shape["tensor"], model.encoder.heads
    if jax.process_count() > 1 and jax.local_device_count() % ways:
        raise UserError(
            f"config.mesh.tensor: {ways} doesn't divide the {jax.local_device_count()} "
            "devices of a process; choose one that does"
        )
    if heads % ways:
        raise UserError(
            f"config.mesh.tensor: {ways} doesn't divide the {heads} heads of the ViT"
        )
