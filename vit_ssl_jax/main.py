"""python -m vit_ssl_jax.main --config=configs/ijepa_vitl.py --workdir=DIR"""

import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

import vit_ssl_jax
from vit_ssl_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, configs/NAME.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; resumed if not new.")
flags.mark_flags_as_required(["config", "workdir"])


def find_config(argument):
    """`--config=configs/x.py[:arg]`: also found in the installed package."""
    flag, _, value = argument.partition("=")
    path, colon, rest = value.partition(":")
    if flag not in ("--config", "-config") or pathlib.Path(path).exists():
        return argument
    package = pathlib.Path(vit_ssl_jax.__file__).parent
    for root in (package, package.parent):
        if (root / "configs").is_dir() and (root / path).exists():
            return f"{flag}={root / path}{colon}{rest}"
    known = sorted(f.name for f in package.parent.glob("configs/*.py"))
    known = known or sorted(f.name for f in package.glob("configs/*.py"))
    raise UserError(f"--config: {path} doesn't exist; configs/ has {', '.join(known)}")


def parse(argv):
    """Parses the flags; bad ones end the program with one message."""
    wrong = (UserError, flags.Error, AttributeError, KeyError, TypeError, ValueError)
    try:
        return flags.FLAGS([find_config(argument) for argument in argv])
    except wrong as error:
        sys.exit(f"error: {explain(error)}")


def explain(error):
    """The message of a flag's error, without the layers that it was wrapped in."""
    text = str(error).strip()
    if "must have a value other than None" in text:
        return "give --config=configs/NAME.py and --workdir=DIR"
    if "Traceback" in text:  # raised inside the config file: its last line says why
        return text.splitlines()[-1].partition(": ")[2]
    if isinstance(error, KeyError | AttributeError):
        text = text.replace("\\", "").replace("'", "").strip('"')
        return "the config has no key " + text.replace(
            "nDid you mean", ". Did you mean"
        )
    return text


def main(argv):
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}; flags are --name=value")
    logging.set_verbosity(logging.WARNING)
    try:
        from vit_ssl_jax import train  # after the flags: a typo answers at once

        train.train(CONFIG.value, WORKDIR.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint")
        sys.stdout.flush()
        os._exit(130)  # threads of half-imported libraries don't outlive it well


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
