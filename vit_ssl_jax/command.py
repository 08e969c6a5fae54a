"""What the commands with a config share: flags in, one clear message out."""

import json
import os
import pathlib
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from vit_ssl_jax import clusters, recipes
from vit_ssl_jax.errors import UserError

# What libtpu asks the cloud for, and complains of at length where there is none.
NO_CLOUD = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
PROCESSES = dict(
    coordinator="HOST:PORT where process 0 listens, for a run of several processes.",
    num_processes="How many there are. A TPU pod or SLURM's srun tells all three itself.",
    process_id="Which of them this is, from 0.",
    start_timeout="Seconds that they wait for each other at the start; 300.",
)

LOST = (
    "error: this process can't go on, or has lost another one, and all of them end; what "
    "the first one printed says why. The same command, on all hosts, goes on from the last "
    "checkpoint"
)


def start(run, optional=(), several=False, **texts):
    """Runs a command: `run(config, ...)` with a flag of that name for each of `texts`.

    `config` is a config file (`--config=configs/x.py[:argument]`, and any value in it
    by `--config.key=value`), the others are strings; `texts` are their help. All must
    be given but those in `optional`, which are "" then. With `several` it may be one of
    several processes, which meet before `run`. A UserError ends the program with its
    message and status 1.
    """
    names = list(texts)
    needed = [name for name in names if name not in optional]
    define({**texts, **PROCESSES} if several else texts, needed)

    def main(argv):
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}; flags are --name=value")
        logging.set_verbosity(logging.WARNING)
        calm_libtpu()
        values = {name: flags.FLAGS[name].value for name in names}
        leave = None
        try:
            leave = join(values) if several else None
            run(**values)
        except UserError as error:
            if leave:
                print(f"error: {error}", file=sys.stderr)
                leave()
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint")
            sys.stdout.flush()
            os._exit(130)  # threads of half-imported libraries don't outlive it well
        except Exception:
            if not leave:
                raise
            traceback.print_exc()
            print(LOST, file=sys.stderr)
            leave()

    def parse(argv):
        try:
            return flags.FLAGS([find_config(argument) for argument in join_words(argv)])
        except Exception as error:  # noqa: BLE001 - a config file is a program
            sys.exit(f"error: {explain(error, needed)}")

    app.run(main, flags_parser=parse)


def define(texts, needed):
    """Defines the flags, strings but for a config file, listed by --help."""
    for name, text in texts.items():
        if name == "config":
            config_flags.DEFINE_config_file(name, None, text)
        else:
            flags.DEFINE_string(name, None if name in needed else "", text)
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    flags.mark_flags_as_required(needed)


def join(values):
    """Joins the other processes of the run: how to leave them; None: it has no others."""
    place = [flags.FLAGS[name].value for name in PROCESSES]
    group, timeout = clusters.find_group(*place[:3]), place[3] or "300"
    if not timeout.isdecimal() or int(timeout) < 1:
        raise UserError(f"--start_timeout={timeout}: give seconds, a whole number")
    if group is None:
        return None
    # After the flags: a typo answers at once.
    from vit_ssl_jax import collected, processes

    config = json.loads(values["config"].to_json_best_effort())
    facts = {f"config.{k}": v for k, v in collected.flatten(config).items()}
    processes.start(group, {**values, **facts, "config": ""}, int(timeout))
    return processes.leave


def calm_libtpu():
    """Keeps libtpu quiet where it is installed, to plan with, but no TPU is."""
    if not clusters.has_chips():
        for key, value in NO_CLOUD.items():
            os.environ.setdefault(key, value)


def json_file(path):
    """The file of `--json=PATH`, or None; raises UserError if its folder isn't there."""
    if not path:
        return None
    out = pathlib.Path(path)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"--json: {path} can't be written; name a file in a folder")
    return out


def join_words(argv):
    """`--config FILE` as `--config=FILE`."""
    argv = list(argv)
    while "--config" in argv[:-1]:
        at = argv.index("--config")
        argv[at : at + 2] = [f"--config={argv[at + 1]}"]
    return argv


def find_config(argument):
    """`--config=configs/x.py[:arg]`, with the file that `recipes.find` finds."""
    flag, _, value = argument.partition("=")
    path, colon, rest = value.partition(":")
    if flag not in ("--config", "-config") or pathlib.Path(path).exists():
        return argument
    return f"{flag}={recipes.find(path)}{colon}{rest}"


def explain(error, needed):
    """The message of a flag's error, without the layers that it was wrapped in."""
    text = str(error).strip()
    if "must have a value other than None" in text:
        values = dict(config="configs/NAME.py")
        given = [f"--{name}={values.get(name, 'DIR')}" for name in needed]
        return f"give {' and '.join(given)}"
    if "Traceback" in text:  # raised inside the config file: its last line says why
        return text.splitlines()[-1].partition(": ")[2]
    if isinstance(error, KeyError | AttributeError):
        text = text.replace("\\", "").replace("'", "").strip('"')
        return "the config has no key " + text.replace(
            "nDid you mean", ". Did you mean"
        )
    if isinstance(error, UserError | flags.Error | TypeError | ValueError):
        return text
    return f"--config: {type(error).__name__}: {text}"
