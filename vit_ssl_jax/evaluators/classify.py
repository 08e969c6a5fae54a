"""A classifier on labelled images: top-1, top-5, mean per class, ReaL's label sets.

Images of ImageNet's classes are known by the names of these, WordNet ids, whatever their
number: the 200 of ImageNet-A and -R, say.
"""

import dataclasses
import functools

import jax
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.data import imagenet
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Wants, accuracy, sharing
from vit_ssl_jax.evaluators.banks import check_labels
from vit_ssl_jax.ops import images

PER_CLASS = "mean_per_class"
BEST = 5  # answers to an image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings: the images, and their classes in the head."""

    split: str  # whose images are classified
    label_map: tuple  # the head's class of each class of the data; (): the same
    only_present: bool  # classes that no image of the split has can't be an answer
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
    for key in ("label_map", "only_present"):
        if np.ndim(source.no_label) and getattr(c, key):
            raise UserError(f"{key}: the images here have sets of classes")
    head = run.method.model.num_classes
    check_head(source.num_classes, head, c.label_map or by_name(source, head))


def make(c, run):
    """Makes `evaluate(state, inputs)` over the run's mesh."""
    judge = make_evaluator(run.method, run.mesh, run.normalize)
    head = run.method.model.num_classes

    def evaluate(state, inputs):
        label_map = c.label_map or by_name(inputs.source("split"), head)
        metrics = judge(state, inputs.plain("split"), label_map, c.only_present)
        if c.metric == PER_CLASS:
            return metrics
        return {k: v for k, v in metrics.items() if not k.endswith(PER_CLASS)}

    return evaluate


def by_name(source, head):
    """The head's class of each class of a source by WordNet id; () where that says nothing.

    A head of 1,000 classes is taken for one of ImageNet's. Sets of classes aren't mapped.
    """
    if head != imagenet.CLASSES or np.ndim(source.no_label):
        return ()
    numbers = imagenet.numbers_of(source.class_names)
    return () if numbers == tuple(range(head)) else numbers


def make_ranker(method, normalize, count=BEST):
    """Makes `best(params, image uint8 [B H W 3]) -> [B count]`, likeliest class first.

    To be jitted. With fewer than `count` classes it gives all of them.
    """

    def best(params, image):
        image = normalize(images.to_float(image))
        logits = method.logits(params, image)
        return jax.lax.top_k(logits, min(count, logits.shape[-1]))[1]

    return best


@functools.lru_cache(1)
def make_evaluator(method, mesh, normalize):
    """Makes `evaluate(state, batches, label_map, only_present) -> {metric: float}`.

    Where the run keeps averaged weights, `ema/...` has their metrics beside those of
    the weights themselves. With `only_present` the likeliest of the classes that occur is
    the answer (ImageNet-A's and -R's code: of their 200). `batches` come from
    `data.pipeline.eval_batches`; what only fills the last one, and images that couldn't be
    read, count for nothing. The newest is kept: a suite of many sets compiles it once.
    """

    whole = partition.replicated(mesh)

    @functools.cache
    def ranker(count):
        return jax.jit(make_ranker(method, normalize, count), out_shardings=whole)

    def evaluate(state, batches, label_map, only_present=False):
        best = ranker(method.model.num_classes if only_present else BEST)
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
        if only_present:
            some = np.unique(labels)
            ranked = {n: [among(r, some) for r in rows] for n, rows in ranked.items()}
        return {
            name + metric: value
            for name, rows in ranked.items()
            for metric, value in accuracy.score(np.concatenate(rows), labels).items()
        }

    return evaluate


def among(ranked, some):
    """The first BEST of ranked classes that are among some: `[B C] -> [B BEST]`."""
    absent = ~np.isin(ranked, some)
    order = np.argsort(absent, axis=1, kind="stable")[:, :BEST]
    return np.take_along_axis(ranked, order, axis=1)


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
