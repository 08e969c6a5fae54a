"""python -m vit_ssl_jax.evaluate --config=configs/eval_SUITE.py --checkpoint=DIR[,DIR...]

Judges finished encoders: every task of the suite with every evaluator, for one checkpoint
or several. DIR is a run's workdir (its newest checkpoint), `WORKDIR:best` (the one that
`config.keep_best` kept) or a `checkpoints/STEP` in it. Of several processes, as `main` has
them, each makes its part of the images.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from vit_ssl_jax import arguments, command, host
from vit_ssl_jax.errors import UserError


def evaluate(
    config: ConfigDict,
    checkpoints: str | os.PathLike | Sequence[str | os.PathLike],
    workdir: str | os.PathLike = "",
    say: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Evaluates checkpoints by a suite: `{checkpoint: {metric: float}}`.

        evaluate(recipes.load("eval_quickstart.py"), "runs/quickstart")

    `config` is that of `configs/eval_*.py` or `probe_*.py`. What the model is comes
    from the config.json beside each checkpoint; `config.variant` says which ViT is
    expected, "" any. Results are printed, and written after every task to
    `evaluations/` in the run's workdir, or in `workdir` where that is given; a suite
    that was stopped goes on with the task it was at, a probe at the exact step. Tasks
    whose data isn't there are left out with a line. Several processes
    (`distributed.processes`) share the images; process 0 says and writes, all return the
    same. Raises UserError where nothing can be evaluated.
    """
    several = bool(sys.modules.get("jax"))  # perhaps: processes have met
    arguments.check_evaluation(config)
    config = config.copy_and_resolve_references()
    if isinstance(checkpoints, str | os.PathLike):
        checkpoints = [checkpoints] if checkpoints else []
    if not checkpoints:
        raise UserError("--checkpoint: give a run's workdir or its checkpoints/STEP")
    for path in () if several else checkpoints:
        arguments.check_checkpoint(path)
    from vit_ssl_jax import judging  # after the flags: a typo answers at once

    host.prepare()
    return judging.judge(config, checkpoints, workdir, say)


def execute(config, checkpoint, workdir):
    """Runs the command: evaluates `checkpoint`, one or several parted by commas."""
    paths = [path for path in checkpoint.split(",") if path]
    evaluate(config, paths, workdir, functools.partial(print, flush=True))


if __name__ == "__main__":
    command.start(
        execute,
        optional=("workdir",),
        several=True,
        config="Suite, configs/eval_NAME.py or configs/probe_NAME.py.",
        checkpoint="Workdirs of runs, WORKDIR:best or checkpoints/STEP, parted by commas.",
        workdir="Folder for the results; else the run's own.",
    )
