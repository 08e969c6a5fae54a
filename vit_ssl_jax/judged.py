"""The model of a finished run, for evaluation: no optimiser, no training data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vit_ssl_jax import build, checkpoint, partition, pretrained, step
from vit_ssl_jax.errors import UserError

NEEDED = ("recipe", "method", "vit", "optim", "data", "mesh", "online", "health")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint and the config that it was trained with."""

    folder: Any  # epath.Path, `checkpoints/STEP`
    config: ConfigDict


def read_trained(folder, suite):
    """What a checkpoint's config.json says, on the devices that `suite` is for.

    Raises UserError where the file lacks parts.
    """
    found = pretrained.read_whole_config(folder)
    if missing := [key for key in NEEDED if key not in found]:
        raise UserError(
            f"the config.json of {folder} has no {', '.join(missing)}: it is of an "
            "older version, or no run's; add what is missing, as configs/ have it"
        )
    config = ConfigDict(as_tuples(found))
    if suite.variant not in ("", config.vit.variant):
        config.vit.variant = suite.variant  # doesn't fit: the error lists the arrays
    config.mesh = suite.mesh
    mesh = partition.make_mesh(config.mesh)
    config.batch_size = partition.ways(mesh)
    config.accum, config.steps = 1, 1
    config.evals = ConfigDict()
    return Trained(folder, config)


def as_tuples(tree):
    """JSON's lists as tuples, as they are in a config."""
    if isinstance(tree, dict):
        return {key: as_tuples(value) for key, value in tree.items()}
    return tuple(map(as_tuples, tree)) if isinstance(tree, list) else tree


def load_encoder(trained, size):
    """The encoder for images of `size`: `(run, state, lines to say)`.

    The state has no other parameters. Positions are resampled to another grid of
    patches. Raises UserError where the patch doesn't divide the size.
    """
    run = resized(build.make_run(trained.config), tuple(size))
    encoder, _, lines = pretrained.load(trained.folder, run)
    params = {"encoder": encoder}
    return run, state_of(trained, params, params), lines


def load_classifier(trained, size, where):
    """A supervised model with its head: `(run, state)`; averaged weights are in `ema`.

    Raises UserError for images of another size than it was trained with; `where` is
    what asked for that.
    """
    ours = tuple(trained.config.data.size)
    if tuple(size) != ours:
        raise UserError(
            f"{where}: the classifier was trained at {ours}, not at {tuple(size)}; give "
            "that size, and a resize that goes with it"
        )
    run = build.make_run(trained.config)
    like = run.program.state.params
    params, averaged, _ = checkpoint.load_params(trained.folder, like)
    return run, state_of(trained, params, averaged or {})


def state_of(trained, params, ema):
    """A train state without optimiser."""
    done = jnp.asarray(int(trained.folder.name), jnp.int32)
    return step.TrainState(step=done, params=params, opt_state=(), ema=ema)


def resized(run, size):
    """A run whose encoder has the grid of patches of another image size.

    Only the encoder: what a method does with it need not make sense at that size.
    """
    encoder = run.encoder
    if size == encoder.size:
        return run
    if any(side % encoder.patch for side in size):
        raise UserError(
            f"config.tasks.*.size: {size} px is not divisible by the patch of "
            f"{encoder.patch} px"
        )
    grid = tuple(side // encoder.patch for side in size)
    params = dict(run.program.state.params["encoder"])
    if "posemb" in params:
        old = params["posemb"]
        shape = (1, grid[0] * grid[1] + encoder.cls, encoder.width)
        params["posemb"] = jax.ShapeDtypeStruct(shape, old.dtype, sharding=old.sharding)
    model = run.method.model.clone(encoder=encoder.clone(grid=grid))
    state = run.program.state.replace(params={"encoder": params})
    return dataclasses.replace(
        run,
        method=dataclasses.replace(run.method, model=model),
        program=run.program.replace(state=state),
    )
