"""Two samples of one law: how far apart they may be."""

import numpy as np

from tests.parity import ledger

DRAWS = 2000  # resamplings behind a quantile
QUANTILE = 0.999
DEVIATIONS = 5  # of a probability: 1 in 9,000 maps of 196 cells is beyond
OF_EXACT_LAW = 4


def distance(p, q):
    """Total variation of two histograms, along the last axis."""
    p, q = (np.asarray(x, float) for x in (p, q))
    return 0.5 * np.abs(
        p / p.sum(-1, keepdims=True) - q / q.sum(-1, keepdims=True)
    ).sum(-1)


def limit(law, *counts):
    """The 99.9 % quantile of the total variation of two samples of `counts` from `law`."""
    rng = np.random.default_rng(0)
    law = np.float64(law).ravel() / np.float64(law).sum()
    return np.quantile(
        distance(*(rng.multinomial(int(n), law, DRAWS) for n in counts)), QUANTILE
    )


def histogram_row(golden, name, ours, theirs=None):
    """Row of a histogram of ours against the published one of that name."""
    theirs = golden.arrays[name] if theirs is None else theirs
    ours, theirs = np.ravel(ours), np.ravel(theirs)
    if ours.shape != theirs.shape:
        return ledger.compare_one(golden, name, ours, theirs, ledger.EXACT)
    far = limit(theirs, ours.sum(), theirs.sum())
    tolerance = ledger.Tolerance(absolute=far)
    return ledger.compare_one(golden, name, distance(ours, theirs), 0.0, tolerance)


def conditional_row(golden, name, ours):
    """The same of a joint histogram `[given, value]`: the mean over `given` by theirs.

    Only the values are compared: `given` may be shared by many counts.
    """
    theirs = golden.arrays[name]
    given = np.flatnonzero(theirs.sum(1))
    if ours.shape != theirs.shape or np.any(ours[given].sum(1) == 0):
        return ledger.compare_one(golden, name, np.nan, 0.0, ledger.EXACT)
    share = theirs[given].sum(1) / theirs.sum()
    found = share @ distance(ours[given], theirs[given])
    rng, totals = np.random.default_rng(0), np.zeros(DRAWS)
    for weight, mine, other in zip(share, ours[given], theirs[given]):
        law = other / other.sum()
        pair = (rng.multinomial(int(x.sum()), law, DRAWS) for x in (mine, other))
        totals += weight * distance(*pair)
    tolerance = ledger.Tolerance(absolute=np.quantile(totals, QUANTILE))
    return ledger.compare_one(golden, name, found, 0.0, tolerance)


def probability_row(golden, name, ours, theirs, deviation, largest=DEVIATIONS):
    """Row of probabilities: the largest difference in standard errors `deviation`."""
    error = np.abs(np.float64(ours) - np.float64(theirs)) / np.maximum(deviation, 1e-6)
    tolerance = ledger.Tolerance(absolute=largest)
    return ledger.compare_one(golden, name, error.max(), 0.0, tolerance)
