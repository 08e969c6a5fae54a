"""Capsules: a file a step that wasn't taken, with what `replay` makes it again from."""

import json
import math

import jax
from etils import epath

import vit_ssl_jax
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.workdir import folder
from vit_ssl_jax.workdir.files import replace

NEEDED = ("why", "step", "checkpoint", "workdir", "config")


def find(workdir, step):
    """The file of a step's capsule."""
    return epath.Path(workdir) / "capsules" / f"step-{step}.json"


def write(file, *, step, config, checkpoint, **facts):
    """Writes the capsule of a step to the file of `find`; process 0 does.

    step: its number, from 1. checkpoint: the folder of the last one before it; "" where
    there is none. facts: what else is known. Raises OSError where it can't be written.
    """
    if jax.process_index():
        return
    content = {
        "step": step,
        "checkpoint": str(checkpoint),
        "workdir": str(folder.find(file.parent.parent)),
        **{key: plain(value) for key, value in facts.items()},
        "versions": folder.find_versions(vit_ssl_jax.__version__),
        "config": json.loads(config.to_json_best_effort()),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, json.dumps(content, indent=2) + "\n")


def plain(value):
    """A value as JSON has it: a float that is no number as a word."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read(path):
    """The content of a capsule: dict. Raises UserError for a file that is none."""
    try:
        content = json.loads(epath.Path(path).read_text())
        missing = [key for key in NEEDED if key not in content]
        whole = not missing and isinstance(content["config"], dict)
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); give a capsule") from error
    if not whole or not isinstance(content["step"], int) or content["step"] < 1:
        raise UserError(
            f"{path} is no capsule; a run writes them as WORKDIR/capsules/step-N.json"
        )
    return content
