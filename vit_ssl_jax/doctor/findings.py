"""Findings, which checks return: dicts of name, ok, text, cure and numbers."""

import math

from vit_ssl_jax.errors import UserError


def make(name, ok, text, cure="", **numbers):
    """Makes a finding. `cure` is what to do, "" where it is ok or the text says so.

    Numbers that JSON has no word for become None.
    """
    numbers = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
    }
    return dict(name=name, ok=bool(ok), text=text, cure=cure, **numbers)


def left_out(name, why):
    """A finding of what wasn't checked, which is no fault."""
    return make(name, True, f"left out: {why}", left_out=True)


def examine(name, cure, check, *given):
    """The findings of `check(*given)`; one that isn't ok where it raises."""
    try:
        made = check(*given)
    except UserError as error:
        return [make(name, False, str(error))]
    except Exception as error:  # noqa: BLE001 - that it fails is what is to be found
        return [make(name, False, first_line(error), cure)]
    return made if isinstance(made, list) else [made]


def first_line(error):
    """First line of an exception's text, with its type."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def describe(finding):
    """The line of a finding, and a second one on what to do."""
    mark = "-" if finding.get("left_out") else "ok" if finding["ok"] else "FAILED"
    text = f"{mark:<7}{finding['name']:<12}{finding['text']}"
    return f"{text}\n{'':<19}-> {finding['cure']}" if finding["cure"] else text
