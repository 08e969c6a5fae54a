"""Linear depth on frozen patches: meters of every pixel, RMSE; DINOv2's protocol.

Features of one block or several with the class token beside each patch, four times as
many cells by bilinear resizing, and a linear layer that says how much of each of 256
depths between the least and the greatest there is; their mean by those parts is the
depth (Oquab et al., 2023, section 7.4 and its released head: `BNHead`, which has no
batch normalisation). Losses and errors: `dense.depth_loss`. Judged on whole images and
their mirror images, at the map's size, in Eigen's crop.

Not as there: the momentum isn't cycled, the loss is of a whole batch, and images whose
sides the patch doesn't divide are resized to `size`, not padded.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.checks import MIN_ZERO, POSITIVE
from vit_ssl_jax.data import joint, maps, pairs
from vit_ssl_jax.distributed.signals import Stopped
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import dense
from vit_ssl_jax.evaluators.dense import depth_loss, tokens, training, windows
from vit_ssl_jax.ops import bilinear

UP = 4  # times as many cells as patches, along a side
LEAST = 0.1  # added to each part, so that all are above 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(dense.Config):
    """Settings: those of any head, and of depths, crops and turns."""

    unit: float  # of depths in whole numbers, in a meter: 1000 for millimeters
    bins: int  # depths whose mean the answer is
    min_depth: float  # the least of them, meters
    max_depth: float  # the greatest, meters
    gradient: float  # weight of the gradient loss
    warm: int  # steps before the variance counts in the loss
    crop: tuple  # (height, width) of training images
    border: tuple  # (top, bottom, left, right) that they are cut from; (): all
    degrees: float  # half of them are turned by up to so much
    judged: tuple  # (top, bottom, left, right) of what is judged; (): all
    mirror: bool  # the mean of an image and its mirror image is judged

    def __post_init__(self):
        super().__post_init__()
        for key in ("crop", "border", "judged"):
            object.__setattr__(self, key, tuple(getattr(self, key)))


BOX = (
    "'(top, bottom, left, right)' in pixels, or '()' for all",
    lambda x: len(x) in (0, 4) and (not x or (0 <= x[0] < x[1] and 0 <= x[2] < x[3])),
)
RANGES = dense.RANGES | {
    "unit": POSITIVE,
    "bins": ("at least 2", lambda x: x >= 2),
    "min_depth": POSITIVE,
    "max_depth": POSITIVE,
    "gradient": MIN_ZERO,
    "warm": ("at least 0 (steps)", lambda x: x >= 0),
    "crop": ("'(height, width)' in pixels", lambda x: len(x) == 2 and min(x) >= 1),
    "border": BOX,
    "degrees": MIN_ZERO,
    "judged": BOX,
}

wants = dense.wants


def check(c, run, open_split):
    """Raises UserError for what doesn't fit the mesh, the encoder or the maps."""
    if c.min_depth >= c.max_depth:
        raise UserError(f"max_depth: {c.max_depth} m is not above min_depth")
    patch = run.encoder.patch
    if any(side % patch for side in c.crop):
        fits = tuple(max(side // patch, 1) * patch for side in c.crop)
        raise UserError(
            f"crop: {c.crop} px is not divisible by the patch of {patch} px; give {fits}"
        )
    dense.check(c, run, open_split, kind_of(c))
    for key, box in (("bank", c.border), ("queries", c.judged)):
        source, name = open_split(key), "border" if key == "bank" else "judged"
        if box:
            image, _, _ = pairs.read_pair(source, 0, kind_of(c))
            joint.check_box(name, image, box)


def make(c, run):
    """Makes `evaluate(state, inputs)`, which goes on where it was stopped."""

    def evaluate(state, inputs):
        record, whole = inputs.record("bank"), run.encoder_params(state)
        if not record["squash"]:
            raise UserError("squash: whole images get the size; set it to True")
        encoder, params = tokens.at_size(run.encoder, whole, c.crop)
        how = joint.Joint(
            size=c.crop,
            short=0,
            scale=c.scale,
            flip=c.flip,
            border=c.border,
            degrees=c.degrees,
            distortion=c.distortion,
            interpolation=record["interpolation"],
        )
        head = training.train(
            c,
            run,
            inputs,
            read=tokens.make_reader(encoder, run.normalize, c),
            params=params,
            batches=functools.partial(batches, c, inputs.source("bank"), how),
            init=lambda: init(c, tokens.count(encoder, c)),
            learn=functools.partial(learn, c),
            about=record,
        )
        predicted = predict(c, run, whole, head, inputs)
        return {f"{c.name}/{k}": v for k, v in score(c, predicted).items()}

    return evaluate


def kind_of(c):
    """How the maps are read."""
    return maps.Depth(c.unit)


def batches(c, source, how, start):
    """This process's share of training batches from a step on."""
    numbers = dict(batch_size=c.batch_size, seed=c.seed, start_step=start)
    shard = training.share()
    return pairs.train_batches(source, kind_of(c), how, shard=shard, **numbers)


def init(c, width):
    """The state before any step, torch's uniform law of a layer: `kernel [F bins]`."""
    keys, most = jax.random.split(jax.random.key(c.seed)), 1 / math.sqrt(width)
    draw = functools.partial(jax.random.uniform, minval=-most, maxval=most)
    head = {"kernel": draw(keys[0], (width, c.bins)), "bias": draw(keys[1], (c.bins,))}
    return training.begin(c, head, {})


def learn(c, state, features, depth):
    """One step: `[B r c F], [B H W] -> (state, loss)`."""

    def loss_fn(head):
        said = bilinear.resize(apply(c, head, features)[..., None], depth.shape[1:])
        said = said[..., 0]
        loss = depth_loss.scale_invariant(said, depth, state.step < c.warm)
        if c.gradient:
            loss += c.gradient * depth_loss.gradient(said, depth)
        return loss, {}

    return training.descend(c, state, loss_fn)


def apply(c, head, x):
    """Depths of four times as many cells a side: `[B r c F] -> [B 4r 4c]` metres.

    The layer comes before the resizing: both are linear, and the order is nothing but
    cheaper.
    """
    logits = jnp.dot(x, head["kernel"], precision="highest")
    logits = logits + head["bias"][None, None, None]
    logits = bilinear.resize(logits, tuple(UP * side for side in x.shape[1:3]))
    parts = jax.nn.relu(logits) + LEAST
    parts = parts / parts.sum(-1, keepdims=True)
    depths = jnp.linspace(c.min_depth, c.max_depth, c.bins)
    return jnp.dot(parts, depths, precision="highest")


def predict(c, run, params, state, inputs):
    """Yields for every image judged its depths `[h w]` and its map, metres, numpy."""
    record = inputs.record("queries")
    read = tokens.make_reader(run.encoder, run.normalize, c)

    @functools.partial(jax.jit, out_shardings=partition.replicated(run.mesh))
    def compute(params, state, image):
        def depths(image):
            said = apply(c, state.head, read(params, image))
            return jnp.clip(said, c.min_depth, c.max_depth)

        if not c.mirror:
            return depths(image)
        return (depths(image) + depths(image[:, :, ::-1])[:, :, ::-1]) / 2

    def cells(image):
        image = partition.put(image, partition.batch_sharding(run.mesh))
        with jax.set_mesh(run.mesh):
            return jax.device_get(compute(params, state, image))

    def pieces():
        for image, depth, _ in pairs.in_order(inputs.source("queries"), kind_of(c)):
            if inputs.stop_requested:
                raise Stopped
            yield joint.resize(image, run.size, record["interpolation"])[None], depth

    for said, depth in windows.answers(pieces(), cells, c.batch_size):
        rows, cols = map(bilinear.matrix, depth.shape, said.shape[1:])
        yield rows @ said[0] @ cols.T, depth


def score(c, predicted):
    """Means over images of their errors, and the number of images."""
    totals, count = {}, 0
    for said, depth in predicted:
        found = depth_loss.errors(said, depth, c.min_depth, c.max_depth, c.judged)
        if found:
            count += 1
            totals = {k: totals.get(k, 0.0) + float(v) for k, v in found.items()}
    if not count:
        raise UserError("queries: no pixel of its maps has a depth that is judged")
    return {key: float(np.float64(value) / count) for key, value in totals.items()}
