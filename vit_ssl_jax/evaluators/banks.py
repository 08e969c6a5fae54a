"""Shared code of evaluators that judge features: a bank with labels, and queries.

`judge(bank, queries) -> {metric: float}`; each is `(features float32 [M F], labels)` in
numpy. Labels are classes `[M]`, those of queries also sets of classes `[M C]`.
"""

import numpy as np

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import Unfit, Wants

POOLS = "'cls' or 'mean'", lambda x: x in ("cls", "mean")  # of the last layer


def wants(c):
    """Features of `c.bank` and `c.queries`, pooled as `c.pool` says."""
    readouts = ((1, c.pool),)
    return Wants(features={"bank": readouts, "queries": readouts}, pixels=True)


def make_evaluate(c, judge, suffix=""):
    """Makes an evaluator's `evaluate(state, inputs)` of a judge of features.

    Metrics are named by the features: `k20_T0.07/top1` -> `k20_T0.07_mean/top1`.
    """

    def evaluate(state, inputs):
        del state
        sets = []
        for key in ("bank", "queries"):
            features, labels = inputs.features(key)
            sets.append((features[1, c.pool], labels))
        parts = {
            tuple(key.rsplit("/", 1)): value for key, value in judge(*sets).items()
        }
        return {f"{a}_{c.pool}{suffix}/{b}": value for (a, b), value in parts.items()}

    return evaluate


def check(c, run, open_split):
    """Raises UserError unless the ViT has what `c.pool` needs, and images have labels."""
    check_pool(c, run)
    check_splits(c, open_split)


def check_pool(c, run):
    """Raises UserError where the ViT lacks the class token that `c.pool` asks for."""
    if c.pool == "cls" and not run.encoder.cls:
        raise UserError("pool: 'cls' needs config.vit.cls=True; use 'mean'")


def check_splits(c, open_split):
    """Raises UserError unless bank and queries have labels, the bank a class an image."""
    for key in ("bank", "queries"):
        split = getattr(c, key)
        if not split:
            raise UserError(f"{key}: name a split")
        if not open_split(key).num_classes:
            raise Unfit(f"{key}: {split} has no labels")
    if np.ndim(open_split("bank").no_label):
        raise Unfit("bank: its images have sets of classes, and one class is needed")


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
    """Checks the labels of a bank and of queries, which may be sets of classes."""
    check_labels(f"{name}, bank", bank)
    if queries.ndim == 1:
        check_labels(f"{name}, queries", queries)
