"""python -m vit_ssl_jax.doctor [--config=configs/NAME.py] [--workdir=DIR] [--json=OUT]

Looks at this machine in under two minutes: versions, devices, fused kernels against
plain ones, a collective, the workdir and a checkpoint in it, the data. Every line is ok
or says what to do; status 1 where one isn't.
"""

import json
import signal
import time

import jax

from vit_ssl_jax import arguments, command, doctor
from vit_ssl_jax.doctor import findings
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.xla import cache


def execute(config, workdir, json_path):
    """Runs the command: prints findings as they come; UserError where one isn't ok."""
    out = arguments.json_file(json_path)
    if config is not None and "tasks" in config:
        raise UserError(
            f"--config: {config.recipe} judges checkpoints; doctor takes what trains"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up
    begun, results = time.perf_counter(), []
    cache.use_cache()
    first = jax.process_index() == 0
    for finding in doctor.diagnose(config, workdir):
        results.append(finding)
        if first:
            print(findings.describe(finding), flush=True)
    faults = [finding["name"] for finding in results if not finding["ok"]]
    if out and first:
        out.write_text(
            json.dumps(dict(ok=not faults, findings=results), indent=2) + "\n"
        )
    if faults:
        names = ", ".join(dict.fromkeys(faults))
        raise UserError(f"not ok: {names} (the lines that begin with FAILED)")
    if first:
        print(f"all is well, in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    command.start(
        lambda config, workdir, json: execute(config, workdir, json),
        optional=("config", "workdir", "json"),
        several=True,
        config="Recipe whose shapes and data are checked, configs/NAME.py.",
        workdir="Folder of a run, to write to; it is left as it was.",
        json="File for the same findings.",
    )
