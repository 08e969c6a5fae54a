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


def execute(config, topology, json_path):
    """Runs the command: prints the plan; status 1 where it doesn't fit."""
    out = arguments.json_file(json_path)
    if "tasks" in config:
        raise UserError(
            f"--config: {config.recipe} judges checkpoints; plan takes what trains"
        )
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
        result = plan(config, topology)
        text = report.describe(result)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(text)
    if not result["fits"]:
        sys.exit(f"error: {config.recipe} doesn't fit on {topology or 'the devices'}")


if __name__ == "__main__":
    command.start(
        lambda config, topology, json: execute(config, topology, json),
        optional=("topology", "json"),
        config="Recipe, configs/NAME.py.",
        topology="TPU slice (v5e:4x8, 2*v5e:4x4) or GPUs (h100:8); else those at hand.",
        json="File for the same figures.",
    )
