"""Runs as rows of a table: repetitions together, the published figure beside them."""

import json
import re
import statistics

from vit_ssl_jax.results import published, runs

HEADLINES = re.compile(r"(top1|mean_per_class|miou|rmse)$")


def tabulate(measured, metrics=""):
    """Rows (dicts) of `runs.Measured`, accuracies in per cent: see `__main__.results`."""
    groups = {}
    for run in measured:
        key = json.dumps(run.settings, sort_keys=True)
        groups.setdefault((run.recipe, run.evaluation, key), []).append(run)
    rows = []
    for (recipe, evaluation, key), repetitions in groups.items():
        others = [json.loads(k) for r, e, k in groups if (r, e) == (recipe, evaluation)]
        settings = differences(json.loads(key), others)
        names = dict.fromkeys(name for run in repetitions for name in run.values)
        for name in filter(lambda n: is_wanted(n, metrics), names):
            having = [r for r in repetitions if name in r.values]
            having = [(run.step, run.values[name]) for run in having]
            rows.append(make_row(recipe, settings, evaluation, name, having))
    return rows


def make_row(recipe, settings, evaluation, name, having):
    """One line of the table, as a dict."""
    factor = 100 if name.endswith(runs.PER_CENT) else 1
    values = [factor * value for _, value in having]
    steps = sorted({step for step, _ in having})
    row = published.find(recipe, name, evaluation)
    return dict(
        recipe=recipe,
        settings=settings,
        evaluation=evaluation,
        metric=name,
        steps=steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}",
        runs=len(values),
        values=values,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        published=row and row.value,
        published_std=row and row.std,
        source="; ".join(filter(None, (row.source, row.note))) if row else "",
    )


def show(mean, std):
    """Mean and deviation as text, `90.23 ± 0.09`; "" for None."""
    if mean is None:
        return ""
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def is_wanted(name, metrics):
    """Whether a metric belongs into the table."""
    if metrics:
        return re.search(metrics, name) is not None
    return bool(HEADLINES.search(name)) and not runs.is_single_head(name)


def differences(mine, all_of_recipe):
    """The settings in which a group of runs differs from others of its recipe."""
    keys = sorted({k for other in all_of_recipe for k in other})
    varying = [k for k in keys if len({str(o.get(k)) for o in all_of_recipe}) > 1]
    return " ".join(f"{k}={mine.get(k)}" for k in varying)
