"""python -m vit_ssl_jax.plan --config=configs/NAME.py [--topology=v5e:4x8] [--json=OUT]

What the run would take on that TPU slice or those GPUs (`h100:8`), or on the devices at
hand: memory, time, communication. With `--search --global_batch=N --budget=SECONDS` the
fastest way to run it that fits.
"""

import json
import sys

import jax
from absl import flags

from vit_ssl_jax import arguments, command
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import plan, report, search

SEARCH = flags.DEFINE_bool("search", False, "Look for the fastest plan that fits.")
BATCH = flags.DEFINE_integer(
    "global_batch", 0, "Images a step for --search; 0: config.batch_size.", 0
)
BUDGET = flags.DEFINE_float(
    "budget", 900.0, "Seconds that --search may compile; one more may end after.", 0.0
)


def execute(config, topology, json_path, encoder=""):
    """Runs the command: prints the plan; status 1 where it doesn't fit."""
    out = arguments.json_file(json_path)
    if "tasks" in config and SEARCH.value:
        raise UserError(f"--search: {config.recipe} judges checkpoints; leave it out")
    if encoder and "tasks" not in config:
        raise UserError("--encoder is for configs/probe_NAME.py; leave it out")
    if BATCH.value and not SEARCH.value:
        raise UserError(
            "--global_batch is for --search; else give --config.batch_size="
            f"{BATCH.value}"
        )
    if topology not in ("", "devices"):
        jax.config.update("jax_platforms", "cpu")  # a slice needs no device at hand
    if SEARCH.value:
        result = search.search(
            config, topology, BATCH.value or config.batch_size, BUDGET.value
        )
        text = search.describe(result)
    else:
        result = plan(config, topology, encoder=encoder)
        text = report.describe(result)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(text)
    if not result["fits"]:
        sys.exit(f"error: {config.recipe} doesn't fit on {topology or 'the devices'}")


if __name__ == "__main__":
    command.start(
        lambda config, topology, json, encoder: execute(
            config, topology, json, encoder
        ),
        optional=("topology", "json", "encoder"),
        config="Recipe, configs/NAME.py.",
        topology="TPU slice (v5e:4x8, 2*v5e:4x4) or GPUs (h100:8); else those at hand.",
        encoder="Recipe of what configs/probe_NAME.py judges; else the published one.",
        json="File for the same figures.",
    )
