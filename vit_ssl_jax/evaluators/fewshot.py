"""Few-shot least squares on frozen features, as big_vision has it (ViT, 2021)."""

import dataclasses
import functools

import numpy as np

from vit_ssl_jax.checks import POSITIVE, SIZES
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import accuracy, banks, features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the fits."""

    bank: str  # split that the shots are drawn from
    queries: str  # split whose images are judged
    pool: str  # "cls" or "mean" of the last layer
    shots: tuple  # images of each class
    seeds: tuple  # of the draws
    ridge: float  # strength of the penalty
    metric: str = "top1"  # the accuracy: "top1" or "mean_per_class"


RANGES = {
    "pool": banks.POOLS,
    "shots": SIZES,
    "seeds": ("a tuple of seeds, at least one", lambda x: len(x) > 0 and min(x) >= 0),
    "ridge": POSITIVE,
    "metric": accuracy.METRICS,
}
CONSTANT = 100.0  # the appended feature: a bias that the penalty hardly touches


wants = banks.wants
check = banks.check


def make(c, run):
    """Makes `evaluate(state, inputs)` on the host."""
    del run
    how = dict(shots=c.shots, seeds=c.seeds, ridge=c.ridge, metric=c.metric)
    return banks.make_evaluate(c, functools.partial(evaluate, **how))


def evaluate(bank, queries, *, shots, seeds, ridge, metric="top1"):
    """Accuracy of ridge regression to +-1 targets on `shots` images of each class.

    For each number of shots `{"shots10_l1024/top1": mean over seeds, ".../std": ...}`;
    `std` is the sample deviation, and left out with a single seed. A seed's fewer
    shots are among its more. Features are standardised by the shots' own mean and
    deviation. In float64 on the host: the shots are few. Raises UserError where a class
    has fewer images in the bank than shots.
    """
    (x, y), (q, labels) = bank, queries
    banks.check_both("few-shot", y, labels)
    classes = (
        labels.shape[1] if labels.ndim == 2 else int(max(y.max(), labels.max())) + 1
    )
    _check_enough(y, classes, max(shots))
    out = {}
    for count in shots:
        accuracies = []
        for seed in seeds:
            rows = draw(y, classes, count, seed)
            predicted = score(x[rows], y[rows], q, classes, ridge).argmax(1)
            accuracies.append(accuracy.accuracy(predicted, labels, metric))
        # mean accuracy over the seeds of the draws
        out[f"shots{count}_l{ridge:g}/{metric}"] = float(np.mean(accuracies))
        if len(accuracies) > 1:
            # sample deviation of that accuracy over the seeds
            out[f"shots{count}_l{ridge:g}/std"] = float(np.std(accuracies, ddof=1))
    return out


def draw(labels, classes, shots, seed):
    """Rows of `shots` images of each class, sorted: `[M] -> [classes * shots]`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    # A stable sort keeps the order of the draw within a class.
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], np.arange(classes))
    rows = by_class[starts[:, None] + np.arange(shots)[None]]
    return np.sort(rows.ravel())


def solve_ridge(x, y, ridge):
    """Solves `(x'x + ridge I)^-1 x'y`, the smaller system: `[N F], [N C] -> [F C]`."""
    rows, features = x.shape
    if rows >= features:
        return np.linalg.solve(x.T @ x + ridge * np.eye(features), x.T @ y)
    return x.T @ np.linalg.solve(x @ x.T + ridge * np.eye(rows), y)


def score(x, y, queries, classes, ridge):
    """Scores by standardised shots and labels: `[N F], [N], [Q F] -> [Q classes]`."""
    x = np.asarray(x, np.float64)
    mean, std = x.mean(0), x.std(0) + 1e-5

    def prepare(x):
        x = (np.asarray(x, np.float64) - mean) / std
        return np.pad(x, ((0, 0), (0, 1)), constant_values=CONSTANT)

    weights = solve_ridge(prepare(x), 2.0 * np.eye(classes)[y] - 1.0, ridge)
    parts = [
        prepare(queries[i : i + features.CHUNK]) @ weights
        for i in range(0, len(queries), features.CHUNK)
    ]
    return np.concatenate(parts)


def _check_enough(labels, classes, shots):
    counts = np.bincount(labels, minlength=classes)
    few = np.flatnonzero(counts < shots)
    if len(few):
        named = ", ".join(f"{c} ({counts[c]})" for c in few[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        raise UserError(
            f"few-shot, bank: {shots} images of each class are needed, and these "
            f"classes have fewer (how many): {named}{more}; name a larger split as the "
            "bank, or ask for fewer shots"
        )
