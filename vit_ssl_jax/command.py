"""What the commands with a config share: flags in, one clear message out."""

import json
import os
import pathlib
import re
import signal
import sys
import threading
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from vit_ssl_jax import host, recipes
from vit_ssl_jax.distributed import clusters
from vit_ssl_jax.errors import UserError, explain_error, printable

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


def start(execute, optional=(), several=False, **texts):
    """Runs a command: `execute(config, ...)` with a flag for each argument (`texts`).

    `config` is a config file (`--config=configs/x.py[:argument]`, and any value in it
    by `--config.key=value`), the others are strings; `texts` are their help by name.
    All must be given but those in `optional`, which are "" then (a config is None).
    With `several` this may be one of several processes, which meet before `execute`. A
    UserError ends the program with its message and status 1.
    """
    signal.signal(signal.SIGINT, leave_at_once)
    names = list(texts)
    needed = [name for name in names if name not in optional]
    define({**texts, **PROCESSES} if several else texts, needed)

    def main(argv):
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}; flags are --name=value")
        logging.set_verbosity(logging.WARNING)
        host.prepare()
        host.take_gpu_memory()
        values = {name: flags.FLAGS[name].value for name in names}
        leave = None
        try:
            leave = join(values) if several else None
            execute(**values)
            leave_stuck_threads()
        except KeyboardInterrupt:  # the second of a run that was to stop
            leave_at_once()
        except Exception as error:
            if text := explain_error(error):
                end(text, leave)
            if not leave:
                raise
            traceback.print_exc()
            print(LOST, file=sys.stderr)
            leave()

    def parse(argv):
        if {"--help", "-help", "-h", "--h"} & set(argv[1:]):
            print(describe(names))
            sys.exit(0)
        try:
            return flags.FLAGS([find_config(argument) for argument in join_words(argv)])
        except Exception as error:  # noqa: BLE001 - a config file is a program
            sys.exit(f"error: {explain(error, needed, argv)}")

    app.run(main, flags_parser=parse)


def leave_stuck_threads():
    """Ends the process where a thread waits for what never comes, see `signals.Late`."""
    signals = sys.modules.get("vit_ssl_jax.distributed.signals")
    if signals and signals.Late.raised:
        leave_threads(0)


def leave_threads(status):
    """Ends the process with a status, without waiting for what still runs in threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end(message, leave):
    """Prints one line and ends the process, and by `leave` its part in a group."""
    print(f"error: {printable(str(message))}", file=sys.stderr)
    if leave:
        leave()
    fail()


def fail():
    """Ends the process with status 1, without waiting for what still runs in threads."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    if any(not thread.daemon for thread in others):
        leave_threads(1)
    sys.exit(1)


def leave_at_once(*signal_and_frame):
    """Ends the process: what Ctrl-C does where nothing is to be saved.

    No exception: half-imported libraries swallow one, or their threads outlive it.
    """
    del signal_and_frame
    text = "interrupted; the same command goes on from what it has saved\n"
    os.write(sys.stdout.fileno(), text.encode())  # `print` may be at work
    os._exit(130)


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
    """Joins the other processes of a run; returns how to leave them, or None."""
    place = [flags.FLAGS[name].value for name in PROCESSES]
    group, timeout = clusters.find_group(*place[:3]), place[3] or "300"
    if not timeout.isdecimal() or int(timeout) < 1:
        raise UserError(f"--start_timeout={timeout}: give seconds, a whole number")
    if group is None:
        return None
    # After the flags: a typo answers at once.
    from vit_ssl_jax.distributed import processes

    host.fail_at_once()
    config = values["config"]
    config = {} if config is None else json.loads(config.to_json_best_effort())
    facts = {f"config.{k}": v for k, v in recipes.flatten(config).items()}
    processes.start(group, {**values, **facts, "config": ""}, int(timeout))
    return processes.leave


def join_words(argv):
    """Joins `--config FILE` to `--config=FILE`."""
    argv = list(argv)
    while "--config" in argv[:-1]:
        at = argv.index("--config")
        argv[at : at + 2] = [f"--config={argv[at + 1]}"]
    return argv


def find_config(argument):
    """Completes `--config=configs/x.py[:arg]` by the file that `recipes.find` finds."""
    flag, _, value = argument.partition("=")
    path, colon, rest = value.partition(":")
    if flag not in ("--config", "-config") or pathlib.Path(path).exists():
        return argument
    return f"{flag}={recipes.find(path)}{colon}{rest}"


def describe(names):
    """What --help prints: what the command does, its flags, and the recipes it takes."""
    text = sys.modules["__main__"].__doc__ or ""
    lines = [text.strip(), "", "Flags:"]
    known = {f.name: f for f in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    ours = [known.pop(name) for name in names]
    lines += [f"  --{flag.name}: {flag.help}" for flag in [*ours, *known.values()]]
    if "config" not in names:
        return "\n".join(lines)
    lines += [
        "",
        "--config.KEY=VALUE changes a value of the recipe, as --config.batch_size=64 or",
        '--config.data.size="(128,128)"; its file lists all keys. Recipes, configs/NAME.py:',
    ]
    for task, files in recipes.listed().items():
        lines += ["", f"{task}:"]
        lines += [f"  {file.name:<24}{recipes.describe(file)}" for file in files]
    return "\n".join(lines)


def given_recipe(argv):
    """The config of the `--config=FILE` among a command's words, None if there is none."""
    given = [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    try:
        return recipes.load(given[0]) if given else None
    except UserError:
        return None


def explain_unknown(flag, argv):
    """The message for a flag that isn't known; it may be a key of the recipe."""
    config = given_recipe(argv)
    if config is None:
        return f"--{flag}: give --config=configs/NAME.py, too" * flag.startswith(
            "config."
        )
    keys = recipes.flatten(config.to_dict())
    near = [key for key in keys if key == flag or key.endswith(f".{flag}")]
    if not near:
        return ""
    return f"there is no flag --{flag}; say " + " or ".join(
        f"--config.{key}=VALUE" for key in near[:3]
    )


def explain_key(error, argv):
    """The message for a `--config.KEY` that the recipe hasn't, with the keys it has."""
    config = given_recipe(argv)
    words = [word.lstrip("-").partition("=")[0] for word in argv]
    keys = [word[len("config.") :] for word in words if word.startswith("config.")]
    for key in keys if config is not None else []:
        hint = recipes.find_missing(config, re.sub(r"\[.*", "", key))
        if hint is not None:
            return f"the config has no key {key}{hint}"
    return f"the config has no key {error}"


def explain(error, needed, argv=()):
    """The message of a flag's error, without the layers that it was wrapped in."""
    text = str(error).strip()
    if unknown := re.match(r"Unknown command line flag '([^']+)'", text):
        return explain_unknown(unknown[1], argv) or text
    if "must have a value other than None" in text:
        values = dict(config="configs/NAME.py")
        given = [f"--{name}={values.get(name, 'DIR')}" for name in needed]
        return f"give {' and '.join(given)}"
    if "Traceback" in text:  # raised inside the config file: its last line says why
        return text.splitlines()[-1].partition(": ")[2]
    if isinstance(error, KeyError | AttributeError):
        return explain_key(error, argv)
    if isinstance(error, UserError | flags.Error | TypeError | ValueError):
        return text
    return f"--config: {type(error).__name__}: {text}"
