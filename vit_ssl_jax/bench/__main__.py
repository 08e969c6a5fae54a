"""python -m vit_ssl_jax.bench step --config=configs/NAME.py [--twin] [--json=OUT]

Times the train step of a config on random images, here and now. `--twin` times the same
step in PyTorch, too, taking turns, eager and compiled (`torch` is an optional extra).
"""

import json
import os
import sys

from absl import flags

from vit_ssl_jax import arguments, command

STEPS = flags.DEFINE_integer("steps", 10, "Steps that are timed.", 2)
TWIN = flags.DEFINE_bool("twin", False, "Time the same step in PyTorch, too.")


def execute(config, json_path):
    """Runs the command: prints what it measures."""
    if TWIN.value:  # else jax takes most of a GPU's memory, and PyTorch has the rest
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from vit_ssl_jax.bench import report
    from vit_ssl_jax.xla import cache  # after the flags: a typo answers at once

    out = arguments.json_file(json_path)
    cache.use_cache()
    figures = report.measure(config, STEPS.value, TWIN.value)
    print(report.describe(figures))
    if out:
        out.write_text(json.dumps(figures, indent=2) + "\n")


def main():
    """Takes the word `step` away and starts the command."""
    if sys.argv[1:2] != ["step"]:
        sys.exit("error: say python -m vit_ssl_jax.bench step --config=configs/NAME.py")
    del sys.argv[1]
    command.start(
        lambda config, json: execute(config, json),
        optional=("json",),
        config="Recipe, configs/NAME.py.",
        json="File for the same figures.",
    )


if __name__ == "__main__":
    main()
