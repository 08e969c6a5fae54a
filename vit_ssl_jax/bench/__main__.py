"""python -m vit_ssl_jax.bench step --config=configs/NAME.py [--twin] [--json=OUT]
python -m vit_ssl_jax.bench input --config=configs/NAME.py [--topology=v5e:2x4]
python -m vit_ssl_jax.bench save --config=configs/NAME.py [--workdir=DIR]

`step` times the train step of a config on random images, here and now. `--twin` times the
same step in PyTorch, too, taking turns, eager and compiled (`torch` is an optional extra).
`input` times the config's data on this machine, stage by stage, beside a Pillow loader, and
says whether it feeds the step of a topology. `save` times a checkpoint, written below DIR
and removed again: how long it holds a step, and what reading the encoder alone takes.
"""

import json
import os
import sys

from absl import flags

from vit_ssl_jax import arguments, command

STEPS = flags.DEFINE_integer("steps", 10, "Steps that are timed.", 2)
TWIN = flags.DEFINE_bool("twin", False, "Time the same step in PyTorch, too.")
SECONDS = flags.DEFINE_float("seconds", 10.0, "Seconds that the input is timed.", 1.0)
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "Devices that the input is to feed, as for plan: v5e:2x4, h100:8."
)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder below which `save` writes.")


def execute(config, json_path, word):
    """Runs the command: prints what it measures."""
    if TWIN.value:  # else jax takes most of a GPU's memory, and PyTorch has the rest
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from vit_ssl_jax.bench import feeding, report, saving
    from vit_ssl_jax.xla import cache  # after the flags: a typo answers at once

    out = arguments.json_file(json_path)
    cache.use_cache()
    if word == "input":
        figures = feeding.measure(config, SECONDS.value, TOPOLOGY.value)
        print(feeding.describe(figures))
    elif word == "save":
        figures = saving.measure(config, WORKDIR.value)
        print(saving.describe(figures))
    else:
        figures = report.measure(config, STEPS.value, TWIN.value)
        print(report.describe(figures))
    if out:
        out.write_text(json.dumps(figures, indent=2) + "\n")


def main():
    """Takes the first word away and starts the command."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word not in ("step", "input", "save"):
        sys.exit(
            "error: say python -m vit_ssl_jax.bench step --config=configs/NAME.py, "
            "bench input or bench save"
        )
    del sys.argv[1]
    command.start(
        lambda config, json: execute(config, json, word),
        optional=("json",),
        config="Recipe, configs/NAME.py.",
        json="File for the same figures.",
    )


if __name__ == "__main__":
    main()
