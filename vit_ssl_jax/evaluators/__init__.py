"""What a frozen encoder is worth: pure functions of features.

`knn`, `fewshot` and `linear` are
`evaluate(bank, queries, **settings) -> {name: float}`; `bank` and `queries` are
`(features float32 [M F], labels int [M])` in numpy, queries of the first two also with
sets of classes `[M C]` for labels. `probe` trains grids of linear heads on such
features, or on augmented images through the encoder.
"""

import numpy as np

from vit_ssl_jax.errors import UserError

CHUNK = 8192  # rows at a time of features that may lie on disk


def statistics(features):
    """Mean and deviation per feature `[F]`, over rows `[M F]` of any number."""
    total = square = 0.0
    for start in range(0, len(features), CHUNK):
        total = total + features[start : start + CHUNK].sum(0, dtype=np.float64)
    mean = total / len(features)
    for start in range(0, len(features), CHUNK):
        square = square + ((features[start : start + CHUNK] - mean) ** 2).sum(0)
    std = np.sqrt(square / len(features))
    return mean.astype(np.float32), std.astype(np.float32)


def standardize(bank, queries):
    """Both by the bank's mean and deviation per feature: `[M F], [Q F]`."""
    mean, std = statistics(bank)
    return (bank - mean) / (std + 1e-6), (queries - mean) / (std + 1e-6)


def check_labels(name, labels):
    """Raises UserError unless every image has a class; `name` is of the set."""
    if labels.ndim != 1:
        raise UserError(
            f"{name}: each image has a set of classes ({labels.shape[1]}), where one "
            "class is needed; such labels are for queries only"
        )
    missing = int((labels < 0).sum())
    if missing or not len(labels):
        raise UserError(
            f"{name}: {missing} of {len(labels)} images have no label (a class number "
            "of at least 0); give a split with labels, or leave this evaluator out"
        )


def check_both(name, bank, queries):
    """`check_labels` of a bank and of queries, whose labels may be sets of classes."""
    check_labels(f"{name}, bank", bank)
    if queries.ndim == 1:
        check_labels(f"{name}, queries", queries)
