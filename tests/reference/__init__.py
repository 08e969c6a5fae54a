"""The pages of docs/reference/, made from the code and the comments beside it.

    python -m tests.reference

A key of a config, a metric and a flag each have one place that says what they mean: the
comment beside the field, the recipe's line or the entry, or the flag's help. `comments`
reads those, and `settings`, `metrics`, `commands` and `api` make a page each.
"""
