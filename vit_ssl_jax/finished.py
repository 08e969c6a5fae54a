"""The model of a finished run, to be used: no optimiser, no training data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vit_ssl_jax import build, partition, pretrained, step, weights
from vit_ssl_jax.data import pipeline
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import restore

MESH = dict(data=-1, fsdp=1, tensor=1)  # of all devices, to use a model
NEEDED = ("recipe", "method", "vit", "data", "batch_size", "epochs", "steps")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint and the config that it was trained with."""

    saved: Any  # restore.Saved, or weights.Weights
    config: ConfigDict

    @property
    def folder(self):
        """Where it lies: `checkpoints/STEP`, or a file of weights."""
        return self.saved.folder


def read_trained(path, variant=""):
    """The `Trained` of a path as of `pretrained.open_saved`.

    `variant` is the ViT that is expected; "" is any. Raises UserError where there is no
    checkpoint, and where its config.json lacks parts.
    """
    saved = pretrained.open_saved(path)
    if isinstance(saved, weights.Weights):
        weights.check_known(saved)
    folder, settings = saved.folder, dict(pretrained.read_whole_config(saved))
    if missing := [key for key in NEEDED if key not in settings]:
        raise UserError(
            f"the config.json of {folder} has no {', '.join(missing)}: it is of an "
            "older version, or no run's; add what is missing, as configs/ have it"
        )
    settings["vit"] = {"kernels": "auto", **settings["vit"]}  # older runs do not say
    config = ConfigDict(as_tuples(settings))
    if variant not in ("", config.vit.variant):
        config.vit.variant = variant  # doesn't fit: the error lists the arrays
    return Trained(saved, config)


def as_tuples(tree):
    """JSON's lists as tuples, as they are in a config."""
    if isinstance(tree, dict):
        return {key: as_tuples(value) for key, value in tree.items()}
    return tuple(map(as_tuples, tree)) if isinstance(tree, list) else tree


def make_model(trained, mesh):
    """The `build.Model` of a checkpoint; UserError where its config.json allows none."""
    try:
        return build.make_model(trained.config, mesh)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the config.json of {trained.folder} is no run's ({type(error).__name__}: "
            f"{error}); copy it there from the run that wrote the checkpoint"
        ) from error


def load_encoder(trained, mesh, size):
    """The encoder for images of `size`: `(build.Model, state, lines to say)`.

    The state has no other parameters. Positions are resampled to another grid of
    patches. Raises UserError where the patch doesn't divide the size.
    """
    model = resized(make_model(trained, mesh), tuple(size))
    like = model.encoder_shapes
    encoder, _, lines = pretrained.load(trained.saved, model.encoder, like)
    params = {"encoder": encoder}
    lines = [*getattr(trained.saved, "lines", ()), *lines]
    return model, state_of(trained, params, params), lines


def load_model(trained, mesh):
    """The whole model, as it was trained: `(build.Model, state)`."""
    model = make_model(trained, mesh)
    params, ema, _ = restore.load_params(trained.saved, *model.shapes)
    return model, state_of(trained, params, ema)


def run_over(source, data, compute, *, size, mesh, batch_size):
    """Runs a model over all images of a source: `(numbers [b], whole [b], rows [b ...])`.

    compute: images uint8 `[B H W 3]` on the mesh -> rows. Images are resized and cropped
    as `data`, `config.data` of the run, says, at another `size` by the same part. Rows of images that can't be
    read, not `whole`, mean nothing.
    """
    for batch in pipeline.eval_batches(
        source,
        batch_size=partition.fill_ways(min(batch_size, len(source)), mesh),
        size=size,
        resize=scale_resize(data, size),
        interpolation=data.interpolation,
        squash=data.squash,
    ):
        image = partition.put(batch["image"], partition.batch_sharding(mesh))
        with jax.set_mesh(mesh):
            rows = jax.device_get(compute(image))
        numbers, first = np.unique(batch["id"], return_index=True)  # not what fills up
        yield numbers, batch["valid"][first], rows[first]


def scale_resize(data, size) -> int:
    """`data.resize` for images of another size than `data.size`, in proportion."""
    return round(data.resize * min(size) / min(data.size))


def untrained(model, state):
    """The state of the same encoder as it is initialised, at step -1."""

    def init(key):
        image = jnp.zeros((1, *model.encoder.size, 3))
        return model.encoder.init(key, image, False)["params"]

    layout = jax.tree.map(lambda x: x.sharding, model.encoder_shapes)
    with jax.set_mesh(model.mesh):
        params = {"encoder": jax.jit(init, out_shardings=layout)(jax.random.key(0))}
    return state.replace(step=np.int32(-1), params=params, ema=params)


def check_size(trained, size, where):
    """Raises UserError for images of another size than the whole model is for.

    `where` is what asked for that.
    """
    ours = tuple(trained.config.data.size)
    if tuple(size) != ours:
        raise UserError(
            f"{where}: the model was trained at {ours}, not at {tuple(size)}; give "
            "that size, and a resize that goes with it"
        )


def state_of(trained, params, ema):
    """A train state without optimiser."""
    done = np.int32(trained.saved.step)  # of every process, whatever its devices
    return step.TrainState(step=done, params=params, opt_state=(), ema=ema)


def resized(model, size):
    """The model with an encoder for another image size: a grid of its own.

    Only the encoder: what a method does with it need not make sense at that size.
    """
    encoder = model.encoder
    if any(side % encoder.patch for side in size):
        raise UserError(
            f"config.tasks.*.size: {size} px is not divisible by the patch of "
            f"{encoder.patch} px"
        )
    grid = tuple(side // encoder.patch for side in size)
    whole = model.method.model.clone(encoder=encoder.clone(grid=grid))
    method = dataclasses.replace(model.method, model=whole)
    return dataclasses.replace(model, size=size, method=method)
