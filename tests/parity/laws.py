"""Two samples of one law: how far apart they may be."""

import numpy as np

from tests.parity import ledger

DRAWS = 2000  # resamplings behind a quantile
QUANTILE = 0.999
OF_EXACT_LAW = 4  # standard errors of (h, w) drawn from it
DEVIATIONS = 5  # of a probability: 1 in 9,000 maps of 196 cells is beyond


def distance(p, q):
    """Total variation of two histograms, along the last axis."""
    p, q = (np.asarray(x, float) for x in (p, q))
    return 0.5 * np.abs(
        p / p.sum(-1, keepdims=True) - q / q.sum(-1, keepdims=True)
    ).sum(-1)


def joint(shape, *values):
    """Joint histogram of integer arrays."""
    counts = np.zeros(shape, int)
    np.add.at(counts, tuple(np.ravel(x) for x in values), 1)
    return counts


def resample(law, *sizes):
    """Total variations of two samples of these sizes from one law: `[DRAWS]`."""
    rng, law = np.random.default_rng(0), np.float64(law).ravel()
    return distance(*(rng.multinomial(int(n), law / law.sum(), DRAWS) for n in sizes))


def limit(law, *sizes):
    """How far two samples of a law may be apart: the 99.9 % quantile of `resample`."""
    return np.quantile(resample(law, *sizes), QUANTILE)


def histogram_row(golden, name, ours, count=None):
    """Row of a histogram of ours against the published one, which is taken for the law.

    Of its counts no more than `count` are independent draws.
    """
    ours, theirs = np.ravel(ours), np.ravel(golden.arrays[name])
    if ours.shape != theirs.shape or not ours.sum():
        return ledger.compare_one(golden, name, np.nan, 0.0, ledger.EXACT)
    far = limit(theirs, ours.sum(), min(theirs.sum(), count or np.inf))
    tolerance = ledger.Tolerance(absolute=far)
    return ledger.compare_one(golden, name, distance(ours, theirs), 0.0, tolerance)


def conditional_row(golden, name, ours):
    """The same of a joint histogram `[given, value]`: the mean over `given` by theirs.

    Only the values are compared: `given` may be shared by many counts, and what is rare
    may be in one of the two alone.
    """
    theirs = golden.arrays[name]
    if ours.shape != theirs.shape or not np.any(ours.sum(1) * theirs.sum(1)):
        return ledger.compare_one(golden, name, np.nan, 0.0, ledger.EXACT)
    given = np.flatnonzero(ours.sum(1) * theirs.sum(1))
    ours, theirs = ours[given], theirs[given]
    share = theirs.sum(1) / theirs.sum()
    found = share @ distance(ours, theirs)
    pairs = zip(ours, theirs)
    totals = share @ np.stack([resample(b, a.sum(), b.sum()) for a, b in pairs])
    tolerance = ledger.Tolerance(absolute=np.quantile(totals, QUANTILE))
    return ledger.compare_one(golden, name, found, 0.0, tolerance)


def probability_row(golden, name, ours, theirs, deviation, largest=DEVIATIONS):
    """Row of probabilities: the largest difference in standard errors `deviation`."""
    error = np.abs(np.float64(ours) - np.float64(theirs)) / np.maximum(deviation, 1e-6)
    tolerance = ledger.Tolerance(absolute=largest)
    return ledger.compare_one(golden, name, error.max(), 0.0, tolerance)
