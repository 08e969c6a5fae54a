"""Small files of a workdir, read and written without jax."""

import json

# Of a folder that a run writes to.
GONE = (
    "{} was moved or deleted while a run wrote to it; put it back, and the same command goes "
    "on from the last checkpoint that is there"
)


def is_stored(path):
    """Whether a path is in a store of objects (gs://), which are only written whole."""
    return "://" in str(path)


def replace(file, content):
    """Writes text or bytes whole or not at all: a kill leaves the old file."""
    new = file if is_stored(file) else file.parent / f"{file.name}.new"
    write = new.write_bytes if isinstance(content, bytes) else new.write_text
    write(content)
    if new is not file:
        new.replace(file)


def read_dict(file):
    """The dict in a JSON file; None where there is none, or it can't be read as one."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def parse_row(line):
    """A line of metrics.jsonl as a dict; None where it is torn, or has no step."""
    try:
        row = json.loads(line)
        step = row["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**53
    return row if whole else None


def read_rows(file):
    """The rows of a metrics.jsonl, as dicts; a line torn by a kill is left out."""
    if not file.exists():
        return []
    lines = file.read_bytes().decode(errors="replace").splitlines()
    return [row for row in map(parse_row, lines) if row is not None]
