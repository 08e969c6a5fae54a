"""Accuracies of answers against labels: top-1, top-5, mean per class, ReaL's sets."""

import numpy as np

from vit_ssl_jax.errors import UserError

# The range of what a task may be judged by.
METRICS = "'top1' or 'mean_per_class'", lambda x: x in ("top1", "mean_per_class")


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
        return {
            "top1": float(hits[:, 0].mean()),
            "top5": float(hits.any(1).mean()),
        }
    hits = ranked == labels[:, None]
    return {
        "top1": float(hits[:, 0].mean()),  # share of images whose first answer is right
        "top5": float(hits.any(1).mean()),  # share with the right class among five
        # mean over classes of the share of its images that is right
        "mean_per_class": mean_per_class(ranked[:, 0], labels),
    }


def accuracy(predicted, labels, metric):
    """One accuracy, "top1" or "mean_per_class", of single answers `[M]`."""
    return score(np.asarray(predicted)[:, None], labels)[metric]


def mean_per_class(predicted, labels):
    """Mean over the classes that occur of the share of its images that is right."""
    return float(np.mean([(predicted[labels == c] == c).mean() for c in set(labels)]))
