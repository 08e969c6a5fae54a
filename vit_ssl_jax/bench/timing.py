"""Timing of steps that take turns, so that a machine's moods meet all of them alike."""

import statistics
import time


def take_turns(steps, rounds):
    """Times steps that take turns: `{name: function} -> {name: [seconds]}`.

    A B C A B C ...: a function returns when its work is done.
    """
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def summarize(seconds, images):
    """Median, quartiles and images a second of `[seconds]` for `images` a step."""
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return dict(
        step_seconds=median,
        step_seconds_low=low,
        step_seconds_high=high,
        images_per_second=images / median,
    )


def ratio(ours, theirs):
    """How many times as fast we are: the median over the rounds of theirs / ours."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
