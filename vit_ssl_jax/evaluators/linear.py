"""Linear probe: logistic regression (scikit-learn) on frozen features."""

import warnings

from vit_ssl_jax import evaluators
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import classify


def evaluate(bank, queries, *, c, iterations, metric="top1"):
    """Accuracy of an L2-regularised logistic regression on standardised features.

    `c` is the inverse strength of the penalty, `iterations` a bound on L-BFGS steps.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (q, labels) = bank, queries
    evaluators.check_both("linear", y, labels)
    if len(set(y.tolist())) < 2:
        raise UserError("linear, bank: all images are of one class; take another split")
    x, q = evaluators.standardize(x, q)
    probe = LogisticRegression(C=c, max_iter=iterations)
    with warnings.catch_warnings():
        # The bound on steps is part of the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(x, y)
    return {f"C{c:g}/{metric}": classify.accuracy(probe.predict(q), labels, metric)}
