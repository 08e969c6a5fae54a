"""What a frozen encoder is worth: pure functions of features.

An evaluator is `evaluate(bank, queries, **settings) -> {name: float}`; `bank` and
`queries` are `(features float32 [M F], labels int [M])` in numpy.
"""


def standardize(bank, queries):
    """Both by the bank's mean and deviation per feature: `[M F], [Q F]`."""
    mean, std = bank.mean(0), bank.std(0) + 1e-6
    return (bank - mean) / std, (queries - mean) / std
