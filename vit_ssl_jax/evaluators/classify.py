"""A classifier on labelled images: top-1, top-5, mean per class, ReaL's label sets."""

import jax
import numpy as np

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import check_labels
from vit_ssl_jax.ops import images


def make_evaluator(method, mesh, normalize):
    """`evaluate(state, batches, label_map) -> {metric: float}` of a supervised method.

    Where the run keeps averaged weights, `ema/...` has their metrics beside those of
    the weights themselves. `batches` come from `data.pipeline.eval_batches`; what only
    fills the last one, and images that couldn't be read, count for nothing.
    """

    def best(params, image):
        image = normalize(images.to_float(image))
        logits = method.model.apply({"params": params}, image, method="logits")
        return jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]

    whole = partition.replicated(mesh)
    best = jax.jit(best, out_shardings=whole)

    def evaluate(state, batches, label_map):
        weights = {"": state.params}
        if state.ema:
            weights["ema/"] = state.ema
        ranked, labels = {name: [] for name in weights}, []
        for batch in batches:
            labels.append(batch["label"][batch["valid"]])
            image = partition.put(batch["image"], partition.batch_sharding(mesh))
            with jax.set_mesh(mesh):
                for name, params in weights.items():
                    ids = jax.device_get(best(params, image))
                    ranked[name].append(ids[batch["valid"]])
        labels = np.concatenate(labels)
        if labels.ndim == 1:
            check_labels("classify", labels)
        if label_map:
            labels = np.asarray(label_map)[labels]
        return {
            name + metric: value
            for name, rows in ranked.items()
            for metric, value in score(np.concatenate(rows), labels).items()
        }

    return evaluate


def score(ranked, labels):
    """Accuracies of ranked classes `[M 5]` (best first) against labels.

    `labels [M]` are classes; `[M C]` are sets of classes (ImageNet-ReaL, Beyer et al.,
    2020): any of them is right, and images without one don't count. `mean_per_class` is
    the mean over the classes of the top-1 of each; only for single labels.
    """
    if labels.ndim == 2:
        some = labels.any(axis=1)
        if not some.any():
            raise UserError("no image of the split has any label; take another split")
        ranked, labels = ranked[some], labels[some]
        hits = np.take_along_axis(labels, ranked, axis=1) > 0
        return {"top1": float(hits[:, 0].mean()), "top5": float(hits.any(1).mean())}
    hits = ranked == labels[:, None]
    return {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(1).mean()),
        "mean_per_class": mean_per_class(ranked[:, 0], labels),
    }


def accuracy(predicted, labels, metric):
    """One accuracy, "top1" or "mean_per_class", of single answers `[M]`."""
    return score(np.asarray(predicted)[:, None], labels)[metric]


def mean_per_class(predicted, labels):
    """Mean over the classes that occur of the share of its images that is right."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in set(labels)]))


def check_head(name, classes, head, label_map):
    """Raises UserError unless a set's labels are classes of the head.

    `classes` is the set's number, `head` the head's; `label_map` gives the head's class
    of each of the set's.
    """
    if label_map:
        if len(label_map) != classes or not all(0 <= c < head for c in label_map):
            raise UserError(
                f"{name}.label_map: {len(label_map)} entries from {min(label_map)} to "
                f"{max(label_map)} don't fit the {classes} classes of the data and the "
                f"{head} of the head; give one class of the head for each of the data"
            )
    elif classes != head:
        raise UserError(
            f"{name}: the data has {classes} classes, the head {head}; evaluate on the "
            "classes that it was trained on, or give label_map, the head's class of "
            "each class of the data"
        )
