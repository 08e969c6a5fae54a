"""Linear probe: logistic regression (scikit-learn) on frozen features."""

import dataclasses
import functools
import warnings

from vit_ssl_jax.checks import MIN_ONE, POSITIVE
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import accuracy, banks, features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the fit."""

    bank: str  # split that is learned from
    queries: str  # split whose images are judged
    pool: str  # "cls" or "mean" of the last layer
    c: float  # inverse strength of the penalty
    iterations: int  # at most, of L-BFGS
    metric: str = "top1"  # the accuracy: "top1" or "mean_per_class"


RANGES = {
    "pool": banks.POOLS,
    "c": POSITIVE,
    "iterations": MIN_ONE,
    "metric": accuracy.METRICS,
}


wants = banks.wants
check = banks.check


def make(c, run):
    """Makes `evaluate(state, inputs)` on the host."""
    del run
    how = dict(c=c.c, iterations=c.iterations, metric=c.metric)
    return banks.make_evaluate(c, functools.partial(evaluate, **how))


def evaluate(bank, queries, *, c, iterations, metric="top1"):
    """Accuracy of an L2-regularised logistic regression on standardised features.

    `c` is the inverse strength of the penalty, `iterations` a bound on L-BFGS steps.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (q, labels) = bank, queries
    banks.check_both("linear", y, labels)
    if len(set(y.tolist())) < 2:
        raise UserError("linear, bank: all images are of one class; take another split")
    x, q = features.standardize(x, q)
    probe = LogisticRegression(C=c, max_iter=iterations)
    with warnings.catch_warnings():
        # The bound on steps is part of the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(x, y)
    predicted = probe.predict(q)
    return {
        # accuracy of logistic regression with the inverse penalty `c`
        f"C{c:g}/{metric}": accuracy.accuracy(predicted, labels, metric)
    }
