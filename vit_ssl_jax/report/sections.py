"""Which metrics are shown together, and in which order."""

import re

# Title -> what the names of its metrics are like. The first that fits has it.
SECTIONS = {
    "Schedules": r"train/(.*_)?(lr|weight_decay|momentum|temperature|ema)$",
    "Training": "train/",
    "Evaluation": "eval/",
    "Online probes": "online/",
    "Masks": "mask/",
    "Health": "ssl/",
    "Throughput and data": "(perf|data)/",
}
ORDER = ("Training", "Evaluation", "Online probes", "Health", "Masks", "Schedules")
OTHER = "Other"
AXES = {"epoch", "examples_seen"}  # what curves are drawn over
FIRST = ("train/loss", "perf/img_per_sec", "perf/data_wait_frac", "perf/step_seconds")


def arrange(names):
    """Metrics by section: `[{"title": str, "metrics": [name]}]`, none of them empty."""
    found = {}
    for name in sorted(set(names) - AXES, key=lambda n: (rank(n), n)):
        found.setdefault(section_of(name), []).append(name)
    order = [*ORDER, *(title for title in SECTIONS if title not in ORDER), OTHER]
    return [{"title": t, "metrics": found[t]} for t in order if t in found]


def section_of(name):
    """The title under which a metric is shown."""
    return next(
        (title for title, like in SECTIONS.items() if re.match(like, name)), OTHER
    )


def rank(name):
    """Where a metric stands in its section, before the alphabet."""
    return FIRST.index(name) if name in FIRST else len(FIRST)
