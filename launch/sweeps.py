"""What a config's `get_hyper(hyper)` makes its sweep of: lists of {key: value}.

    def get_hyper(hyper):
        return hyper.product([
            hyper.sweep("config.optim.lr", [1e-4, 3e-4]),
            hyper.zipit([hyper.sweep("config.seed", [0, 1]), hyper.fixed("config.steps", 9, 2)]),
        ])

Keys may be written with `config.` in front or without, and `name="optim"` puts a name in
front of all keys below it.
"""

import itertools


def sweep(name, values):
    """One key over its values."""
    return [{name: value} for value in values]


def fixed(name, value, length=1):
    """One key with one value, `length` times (for `zipit`)."""
    return [{name: value} for _ in range(length)]


def product(sweeps, name=""):
    """Every combination; the last sweep goes fastest."""
    return [merge(parts, name) for parts in itertools.product(*sweeps)]


def zipit(sweeps, name=""):
    """The first of each, the second of each, ...; raises ValueError if lengths differ."""
    return [merge(parts, name) for parts in zip(*sweeps, strict=True)]


def chainit(sweeps, name=""):
    """One sweep after the other."""
    return [merge([part], name) for part in itertools.chain(*sweeps)]


def merge(parts, name=""):
    """One dict of several; raises ValueError if two of them set the same key."""
    merged = {}
    for key, value in itertools.chain(*(part.items() for part in parts)):
        key = f"{name}.{key}" if name else key
        if key in merged:
            raise ValueError(f"{key} is swept twice")
        merged[key] = value
    return merged
