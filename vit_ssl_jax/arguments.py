"""Values of flags and configs that are checked before jax is loaded."""

import importlib.util
import pathlib

from ml_collections import ConfigDict

from vit_ssl_jax.errors import UserError

PLACEHOLDERS = ("PRETRAINED", "UPSTREAM")  # of `init_from` in recipes that need one

TRACKERS = ("wandb", "mlflow")


def json_file(path):
    """The file of `--json=PATH`, or None; raises UserError if it can't be written."""
    if not path:
        return None
    out = pathlib.Path(path)
    new = not out.exists()
    try:
        out.open("a").close()
        if new:
            out.unlink()
    except OSError as error:
        raise UserError(
            f"--json: {path} can't be written ({error.strerror}); name a file in a folder"
        ) from None
    return out


def check_out(path, forms):
    """The file of `--out=PATH`; raises UserError where its form or folder can't be."""
    out = pathlib.Path(path).expanduser()
    if out.suffix not in forms:
        raise UserError(f"--out={path}: end it with {' or '.join(forms)}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out={path}: there is no folder {out.absolute().parent}")
    return out


def is_missing(path):
    """Whether a path isn't there; of one in a store (gs://) jax's part asks later.

    Of `RUN:best` it is the run that is asked for.
    """
    path = str(path).removesuffix(":best")
    return "://" not in path and not pathlib.Path(path).expanduser().exists()


def check_images(path):
    """Raises UserError where the folder of `--images=PATH` isn't there."""
    if "://" not in str(path) and not pathlib.Path(path).expanduser().is_dir():
        raise UserError(f"--images={path}: there is no such folder")


def check_file(path):
    """Raises UserError where a file or folder isn't there."""
    if is_missing(path):
        raise UserError(f"there is no {path}; give a file of weights, or a folder")


def check_checkpoint(path):
    """Raises UserError where a run's workdir, or its checkpoints/STEP, isn't there."""
    if is_missing(path):
        raise UserError(
            f"there is no checkpoint under {path}, for there is no such folder; give the "
            "--workdir of a run that has saved one, WORKDIR:best, one of its "
            "checkpoints/STEP, or a file of weights"
        )


def check_capsule(path):
    """Raises UserError where a capsule isn't there."""
    if is_missing(path):
        raise UserError(
            f"there is no {path}; a run writes them as WORKDIR/capsules/step-N.json where "
            "a step isn't taken"
        )


def check_training(config: ConfigDict) -> None:
    """Raises UserError for the config of an evaluation, or a start that isn't given."""
    if "tasks" in config:
        raise UserError(
            f"{config.recipe} is an evaluation, which trains nothing: python -m "
            f"vit_ssl_jax.evaluate --config=... --checkpoint=RUN; recipes to train are "
            "all others of configs/"
        )
    check_tracker(config.get("track", ""))
    start = config.get("init_from", "")
    if start in PLACEHOLDERS:
        raise UserError(
            f"config.init_from: {config.recipe} starts from a trained encoder; give "
            "--config.init_from=PATH, the workdir of the run that trained it or a file of "
            "published weights (docs/weights.md)"
        )
    if start and is_missing(start):
        raise UserError(
            f"config.init_from: there is no checkpoint under {start}, for there is no "
            "such folder or file; give the workdir of a run, or a file of weights"
        )


def check_tracker(track: str) -> None:
    """Raises UserError where the package of `config.track` isn't installed."""
    name = track.partition(":")[0]
    if name in TRACKERS and importlib.util.find_spec(name) is None:
        raise UserError(
            f"config.track: {track!r} needs {name}: pip install 'vit_ssl_jax[{name}]', or "
            "--config.track= to do without"
        )


def check_evaluation(config: ConfigDict) -> None:
    """Raises UserError for a config that is no evaluation's."""
    if "tasks" not in config:
        raise UserError(
            f"{config.get('recipe', 'this config')} is a recipe to train; `evaluate` takes "
            "--config=configs/eval_NAME.py or configs/probe_NAME.py, and the run as "
            "--checkpoint=WORKDIR"
        )


def whole_number(name, text, least):
    """The number of a flag; raises UserError for anything else."""
    if not text.removeprefix("-").isdecimal() or int(text) < least:
        raise UserError(f"--{name}={text}: give a whole number of at least {least}")
    return int(text)
