"""Linear segmentation on frozen patches: a class for every pixel, mIoU.

DINOv2's "linear" (Oquab et al., 2023, section 7.4; its released head and the mmsegmentation
configs made from it): batch normalisation and a linear layer on the last block's
patches, logits resized to the crop's pixels before the cross-entropy, AdamW. Judged as
there on the whole image at its own size, by overlapping windows whose logits are
averaged. Not as there: images are standardised as the encoder was trained, and every
process reads all images that are judged.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_ssl_jax import partition
from vit_ssl_jax.checks import MIN_ONE
from vit_ssl_jax.data import joint, maps, pairs
from vit_ssl_jax.distributed.signals import Stopped
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import dense
from vit_ssl_jax.evaluators.dense import tokens, training, windows
from vit_ssl_jax.ops import batchnorm, bilinear

EPS, MOMENTUM = 1e-5, 0.1  # of batch normalisation, torch's
STD = 0.01  # of the kernel at the start, mmsegmentation's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(dense.Config):
    """Settings: those of any head, and of classes, crops and windows."""

    classes: int  # of the maps
    zero_is_none: bool  # 0 in the maps is no class, and k is class k - 1 (ADE20K)
    most: float  # part of a training crop that one class may have (ten tries)
    stride: int  # pixels between windows


RANGES = dense.RANGES | {
    "classes": ("from 2 to 255", lambda x: 2 <= x <= maps.IGNORED),
    "most": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "stride": MIN_ONE,
}

wants = dense.wants


def check(c, run, open_split):
    """Raises UserError for what doesn't fit the mesh, the encoder or the maps."""
    if c.stride > min(run.size):
        raise UserError(
            f"stride: {c.stride} px leaves gaps between windows of {run.size} px; give "
            f"at most {min(run.size)}"
        )
    dense.check(c, run, open_split, kind_of(c))


def make(c, run):
    """Makes `evaluate(state, inputs)`, which goes on where it was stopped."""
    read = tokens.make_reader(run.encoder, run.normalize, c)

    def evaluate(state, inputs):
        params, record = run.encoder_params(state), inputs.record("bank")
        if record["squash"]:
            raise UserError(
                "squash: windows are of images of any aspect; set it to False"
            )
        how = make_joint(c, run.size, record)
        head = training.train(
            c,
            run,
            inputs,
            read=read,
            params=params,
            batches=functools.partial(batches, c, inputs.source("bank"), how),
            init=lambda: init(c, tokens.count(run.encoder, c)),
            learn=functools.partial(learn, c),
            about=record,
        )
        predicted = predict(c, run, read, params, head, inputs)
        return {f"{c.name}/{k}": v for k, v in score(count(c, predicted)).items()}

    return evaluate


def kind_of(c):
    """How the maps are read."""
    return maps.Classes(c.classes, c.zero_is_none)


def make_joint(c, size, record):
    """How training pairs are augmented; `record` says how images are resized."""
    return joint.Joint(
        size=size,
        short=record["resize"],
        scale=c.scale,
        flip=c.flip,
        most=c.most,
        distortion=c.distortion,
        interpolation=record["interpolation"],
    )


def batches(c, source, how, start):
    """This process's share of training batches from a step on."""
    return pairs.train_batches(
        source,
        kind_of(c),
        how,
        batch_size=c.batch_size,
        seed=c.seed,
        start_step=start,
        shard=training.share(),
    )


def init(c, width):
    """The state before any step: `kernel [F C]`, scales and shifts, statistics."""
    kernel = STD * jax.random.normal(jax.random.key(c.seed), (width, c.classes))
    head = {"kernel": kernel, "bias": jnp.zeros(c.classes)}
    head |= {"scale": jnp.ones(width), "shift": jnp.zeros(width)}
    stats = {"mean": jnp.zeros(width), "variance": jnp.ones(width)}
    return training.begin(c, head, stats)


def learn(c, state, features, read):
    """One step: `[B r c F], [B H W] -> (state, loss)`.

    The loss is the mean over all pixels, those without a class counting 0, as
    mmsegmentation's (`avg_non_ignore=False`).
    """

    def loss_fn(head):
        flat = features.reshape(-1, features.shape[-1])
        x, mean, variance = batchnorm.batch_norm(flat, EPS)
        logits = apply(head, x.reshape(features.shape))
        new = {"mean": mean, "variance": variance}
        stats = jax.tree.map(
            lambda a, b: batchnorm.running(a, b, MOMENTUM), state.stats, new
        )
        return cross_entropy(bilinear.resize(logits, read.shape[1:]), read), stats

    return training.descend(c, state, loss_fn)


def apply(head, x):
    """Logits of standardised features: `[B r c F] -> [B r c C]` float32."""
    x = x * head["scale"][None, None, None] + head["shift"][None, None, None]
    return (
        jnp.dot(x, head["kernel"], precision="highest") + head["bias"][None, None, None]
    )


def cross_entropy(logits, read):
    """Mean over all pixels: `[B H W C], [B H W]`; IGNORED ones count 0."""
    known = read != maps.IGNORED
    classes = jnp.where(known, read, 0).astype(jnp.int32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    return jnp.where(known, losses, 0.0).mean()


def predict(c, run, read, params, state, inputs):
    """Yields for every image judged its classes `[h w]` uint8 and its map `[h w]`."""
    record, cells = inputs.record("queries"), make_cells(run, read, params, state)
    choose = windows.make_chooser(run.mesh)

    def pieces():
        for image, target, _ in pairs.in_order(inputs.source("queries"), kind_of(c)):
            if inputs.stop_requested:
                raise Stopped
            shape = joint.scaled(image.shape[:2], record["resize"], 1.0)
            image = joint.resize(image, shape, record["interpolation"])
            cut, rows = windows.cut(image, run.size, c.stride)
            yield cut, (rows, shape, target)

    for logits, (rows, shape, target) in windows.answers(pieces(), cells, c.batch_size):
        sides = zip(target.shape, shape, run.size, run.encoder.grid, strict=True)
        matrices = [
            windows.weights(new, length, size, c.stride, n)
            for new, length, size, n in sides
        ]
        yield choose(windows.mosaic(logits, rows), *matrices), target


def make_cells(run, read, params, state):
    """Makes `cells(image uint8 [B H W 3]) -> logits [B r c C]`, numpy, over the mesh."""

    @functools.partial(jax.jit, out_shardings=partition.replicated(run.mesh))
    def compute(params, state, image):
        x = read(params, image)
        flat, stats = x.reshape(-1, x.shape[-1]), state.stats
        flat = batchnorm.standardize(flat, stats["mean"], stats["variance"], EPS)
        return apply(state.head, flat.reshape(x.shape))

    def cells(image):
        image = partition.put(image, partition.batch_sharding(run.mesh))
        with jax.set_mesh(run.mesh):
            return jax.device_get(compute(params, state, image))

    return cells


def count(c, predicted):
    """Pixels by class of the map and class predicted: int64 `[C C]`.

    A sum over images, so counts of parts of them may be added.
    """
    total = np.zeros((c.classes, c.classes), np.int64)
    for ids, target in predicted:
        known = target != maps.IGNORED
        both = target[known].astype(np.int64) * c.classes + ids[known]
        total += np.bincount(both, minlength=c.classes**2).reshape(total.shape)
    return total


def score(confusion):
    """mIoU, accuracy of pixels and mean accuracy of classes.

    Means are over classes that are in a map or were predicted (IoU), or are in a map
    (accuracy), as mmsegmentation's.
    """
    if not confusion.any():
        raise UserError("queries: no pixel of its maps has a class")
    right, of_map, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = of_map + said - right
    seen, there = union > 0, of_map > 0
    return {
        # mean over classes of intersection over union
        "miou": float(np.mean(right[seen] / union[seen])),
        # share of pixels whose class is right
        "pixel_accuracy": float(right.sum() / confusion.sum()),
        # mean over classes of the share of its pixels that is right
        "mean_accuracy": float(np.mean(right[there] / of_map[there])),
    }
