"""Linear probe: logistic regression (scikit-learn) on frozen features."""

import warnings

from vit_ssl_jax.evaluators import standardize


def evaluate(bank, queries, *, c, iterations):
    """Top-1 of an L2-regularised logistic regression on standardised features.

    `c` is the inverse strength of the penalty, `iterations` a bound on L-BFGS steps.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (x, y), (q, labels) = bank, queries
    x, q = standardize(x, q)
    probe = LogisticRegression(C=c, max_iter=iterations)
    with warnings.catch_warnings():
        # The bound on steps is part of the protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(x, y)
    return {f"C{c:g}/top1": float(probe.score(q, labels))}
