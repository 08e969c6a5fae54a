"""Evaluations of several checkpoints side by side, and their means over tasks."""

import statistics

from etils import epath

from vit_ssl_jax.results import robustness, runs


def averages(config, done, results):
    """Means over the tasks of a group, and over all that have one, of what all report.

    Of ImageNet-C its own mean, too.
    """
    groups = {}
    for name in config.tasks:
        if group := config.tasks[name].group:
            groups.setdefault("mean", []).append(name)
            groups.setdefault(group, []).append(name)
    if len(groups) == 2:
        del groups["mean"]  # there is but one group
    means = {}
    for group, names in groups.items():
        if len(names) < 2 or not all(name in done for name in names):
            continue  # a mean over part of a suite is no figure of the suite
        common = set.intersection(*(set(done[name]) for name in names))
        for key in sorted(common):
            values = [results[f"{name}/{key}"] for name in names]
            means[f"{group}/{key}"] = statistics.mean(values)
    return means | robustness.errors(done)


def table(by_checkpoint):
    """Markdown of `{checkpoint: {metric: value}}`; of a probe's grid only the best."""
    names = dict.fromkeys(
        name for results in by_checkpoint.values() for name in results
    )
    names = [n for n in names if not runs.is_single_head(n)]
    columns = [epath.Path(folder) for folder in by_checkpoint]
    head = [f"{path.parent.parent.name} {path.name}" for path in columns]
    lines = [
        "| " + " | ".join(["metric", *head]) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name in names:
        cells = [show(name, results.get(name)) for results in by_checkpoint.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def show(name, value):
    """A value as text: accuracies in per cent, all else as it is."""
    if value is None:
        return ""
    if name.endswith(runs.PER_CENT):
        return f"{100 * value:.2f}"
    return f"{value:.4g}"
