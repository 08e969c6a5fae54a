"""A classifier on labelled images: top-1, top-5, mean per class, ReaL's label sets."""

import dataclasses

import jax
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Wants, accuracy, sharing
from vit_ssl_jax.evaluators.banks import check_labels
from vit_ssl_jax.ops import images

PER_CLASS = "mean_per_class"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: the images, and their classes in the head."""

    split: str
    label_map: tuple  # the head's class of each class of the data; (): the same
    metric: str  # "mean_per_class" adds that


RANGES = {"metric": accuracy.METRICS}


def wants(c):
    """Plain images and the whole model."""
    del c
    return Wants(plain=("split",), model=True)


def check(c, run, open_split):
    """Raises UserError unless the model has a head for the classes of the split."""
    if run.method.logits is None:
        raise UserError(
            "only config.method.name='supervised' makes a classifier; leave it out"
        )
    source = open_split("split")
    if np.ndim(source.no_label) and c.label_map:
        raise UserError("label_map: the images here have sets of classes")
    head = run.method.model.num_classes
    check_head(source.num_classes, head, c.label_map)


def make(c, run):
    """Makes `evaluate(state, inputs)` over the run's mesh."""
    judge = make_evaluator(run.method, run.mesh, run.normalize)

    def evaluate(state, inputs):
        metrics = judge(state, inputs.plain("split"), c.label_map)
        if c.metric == PER_CLASS:
            return metrics
        return {k: v for k, v in metrics.items() if not k.endswith(PER_CLASS)}

    return evaluate


def make_ranker(method, normalize):
    """Makes `best(params, image uint8 [B H W 3]) -> [B 5]`, likeliest class first.

    To be jitted. With fewer than five classes it gives all of them.
    """

    def best(params, image):
        image = normalize(images.to_float(image))
        logits = method.logits(params, image)
        return jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]

    return best


def make_evaluator(method, mesh, normalize):
    """Makes `evaluate(state, batches, label_map) -> {metric: float}` of a classifier.

    Where the run keeps averaged weights, `ema/...` has their metrics beside those of
    the weights themselves. `batches` come from `data.pipeline.eval_batches`; what only
    fills the last one, and images that couldn't be read, count for nothing.
    """

    whole = partition.replicated(mesh)
    best = jax.jit(make_ranker(method, normalize), out_shardings=whole)

    def evaluate(state, batches, label_map):
        weights = {"": state.params}
        if method.averages:
            weights["ema/"] = state.ema
        ranked, labels = {name: [] for name in weights}, []
        for batch in batches:
            placed, rest = sharing.place(batch, mesh)
            labels.append(rest["label"][rest["valid"]])
            with jax.set_mesh(mesh):
                for name, params in weights.items():
                    ids = jax.device_get(best(params, placed["image"]))
                    ranked[name].append(ids[rest["valid"]])
        labels = np.concatenate(labels)
        if labels.ndim == 1:
            check_labels("classify", labels)
        if label_map:
            labels = np.asarray(label_map)[labels]
        return {
            name + metric: value
            for name, rows in ranked.items()
            for metric, value in accuracy.score(np.concatenate(rows), labels).items()
        }

    return evaluate


def check_head(classes, head, label_map):
    """Raises UserError unless a set's labels are classes of the head.

    `classes` is the set's number, `head` the head's; `label_map` gives the head's class
    of each of the set's.
    """
    if label_map:
        if len(label_map) != classes or not all(0 <= c < head for c in label_map):
            raise UserError(
                f"label_map: {len(label_map)} entries from {min(label_map)} to "
                f"{max(label_map)} don't fit the {classes} classes of the data and the "
                f"{head} of the head; give one class of the head for each of the data"
            )
    elif classes != head:
        raise UserError(
            f"the data has {classes} classes, the head {head}; evaluate on the "
            "classes that it was trained on, or give label_map, the head's class of "
            "each class of the data"
        )
