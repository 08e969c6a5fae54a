"""From a config to the functions of a run: no data, no devices' memory, no files."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from vit_ssl_jax import flops, methods, optim, partition, step
from vit_ssl_jax.checks import check_ranges
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's numbers and its compiled program."""

    steps: int
    steps_per_epoch: float
    peak_rate: float
    mesh: jax.sharding.Mesh
    normalize: Callable  # image in [0, 1] -> standardised image
    method: methods.Method
    program: step.Program

    @property
    def encoder(self):
        """The ViT that downstream tasks use."""
        return self.method.model.encoder

    def encoder_params(self, state: Any):
        """Its parameters (I-JEPA's teacher, everyone else's student)."""
        return self.method.encoder(state.params, state.ema)


def make_run(config, devices=None):
    """Builds the `Run` of a config, every choice checked; raises UserError.

    `devices` are the ones at hand unless given (a TPU topology's, say).
    """
    check_ranges(config)
    data = config.data
    mesh = partition.make_mesh(config.mesh, devices)
    check_batch(config, mesh)
    epoch = data.num_examples // config.batch_size
    steps = config.steps or int(config.epochs * epoch)
    if steps < 1:
        raise UserError(
            f"config.epochs: {config.epochs:g} epochs of {data.num_examples} images in "
            f"batches of {config.batch_size} (config.batch_size) are no step; raise the "
            "one, lower the other, or set config.steps"
        )
    mean_std = (tuple(data.mean), tuple(data.std))
    normalize = functools.partial(images.normalize, mean=mean_std[0], std=mean_std[1])
    context = methods.Context(
        vit=functools.partial(vit.make_vit, config.vit, tuple(data.size)),
        normalize=normalize,
        mean_std=mean_std,
        steps=steps,
        num_classes=data.num_classes,
    )
    method = methods.make(config.method.to_dict(), context)
    check_tensor(method.model, mesh)
    optimizer = optim.make_optimizer(
        config.optim, steps=steps, epochs=config.epochs, batch_size=config.batch_size
    )
    program = step.make_program(
        method,
        optimizer,
        mesh,
        batch_size=config.batch_size,
        size=tuple(data.size),
        accum=config.accum,
    )
    return Run(
        steps=steps,
        steps_per_epoch=data.num_examples / config.batch_size,
        peak_rate=optim.peak_rate(config.optim, config.batch_size),
        mesh=mesh,
        normalize=normalize,
        method=method,
        program=program,
    )


def step_flops(config, devices=None):
    """Model FLOPs of an optimiser step: int, of all devices together.

    Those of the plain form on unpadded tokens, so devices and their kernels, what is
    computed again (`config.vit.remat`) and accumulation change nothing.
    """
    config = config.copy_and_resolve_references()
    config.vit.remat, config.accum = "none", 1
    config.vit.dtype = "float32"  # in bfloat16 a CPU computes some of it again
    run = make_run(config, devices)
    shapes = run.program.state, run.program.batch
    state, batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return flops.count(run.program.plain_step, state, batch, key)


def check_batch(config, mesh):
    """Raises UserError unless the batch divides over mesh x accumulation."""
    ways = partition.ways(mesh)
    parts = ways * config.accum
    if config.batch_size % parts:
        least = max(config.batch_size // parts, 1) * parts
        raise UserError(
            f"config.batch_size: {config.batch_size} doesn't divide over "
            f"{ways} devices (mesh data x fsdp) x {config.accum} micro-batches "
            f"(config.accum) = {parts}; try {least} or {least + parts}"
        )


def check_tensor(model, mesh):
    """Raises UserError unless tensor parallelism divides the encoder's heads.

    And, of several processes, the devices of each: a process has images of its own.
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
