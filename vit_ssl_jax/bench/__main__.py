"""python -m vit_ssl_jax.bench step --config=configs/NAME.py [--twin] [--json=OUT]

Times the train step of a config on random images, here and now. `--twin` times the same
step in PyTorch, too, taking turns, eager and compiled (`torch` is an optional extra).
"""

import json
import os
import sys

from absl import flags

from vit_ssl_jax import command

STEPS = flags.DEFINE_integer("steps", 10, "Steps that are timed.", 2)
TWIN = flags.DEFINE_bool("twin", False, "Time the same step in PyTorch, too.")


def run(config, json_path):
    """The command: prints what it measures."""
    if TWIN.value:  # else jax takes most of a GPU's memory, and PyTorch has the rest
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from vit_ssl_jax import startup  # after the flags: a typo answers at once
    from vit_ssl_jax.bench import report

    out = command.json_file(json_path)
    startup.use_cache()
    found = report.measure(config, STEPS.value, TWIN.value)
    print(report.describe(found))
    if out:
        out.write_text(json.dumps(found, indent=2) + "\n")


def main():
    """Takes the word `step` away and starts the command."""
    if sys.argv[1:2] != ["step"]:
        sys.exit("error: say python -m vit_ssl_jax.bench step --config=configs/NAME.py")
    del sys.argv[1]
    command.start(
        lambda config, json: run(config, json),
        optional=("json",),
        config="Recipe, configs/NAME.py.",
        json="File for the same figures.",
    )


if __name__ == "__main__":
    main()
