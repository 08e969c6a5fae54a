"""python -m vit_ssl_jax: lists the commands, and starts one by its name."""

import difflib
import runpy
import sys

from vit_ssl_jax import __version__

# Name -> what it does, and what to say after the name to try it.
COMMANDS = {
    "main": (
        "Trains a recipe, or goes on with a stopped run.",
        "--config=configs/quickstart.py --workdir=runs/quickstart",
    ),
    "doctor": (
        "Tells whether this machine is fit to train, and what to do where it isn't.",
        "--config=configs/quickstart.py --workdir=runs/quickstart",
    ),
    "evaluate": (
        "Judges finished encoders: k-NN, probes, few-shot, classifiers.",
        "--config=configs/eval_quickstart.py --checkpoint=runs/quickstart",
    ),
    "features": (
        "Writes the features of a folder of images to a file.",
        "--checkpoint=runs/quickstart --images=DIR --out=features.npz",
    ),
    "predict": (
        "Writes what a classifier says of a folder of images, as CSV.",
        "--checkpoint=runs/classifier --images=DIR --out=predictions.csv",
    ),
    "visualize": (
        "Draws attention, features, neighbours and filters of an encoder.",
        "--checkpoint=runs/quickstart --images=DIR --out=pictures",
    ),
    "convert": (
        "Reads other code's weights into a workdir, and writes a run's for them.",
        "inspect dinov2_vits14_pretrain.pth",
    ),
    "replay": (
        "Makes a step that wasn't finite again, and says where it began.",
        "runs/quickstart/capsules/step-7.json",
    ),
    "results": (
        "Collects runs and evaluations into one table.",
        "runs --format=markdown",
    ),
    "report": (
        "Writes one page about runs, or serves it while they train.",
        "runs --out=report.html",
    ),
    "plan": (
        "Tells what a run takes on TPUs or GPUs, without any.",
        "--config=configs/ijepa_vith.py --topology=v5e:8x8",
    ),
    "plan.matrix": (
        "Which recipe fits which TPUs and GPUs, as a table.",
        "--out=plans --budget=3600",
    ),
    "data.prepare": (
        "Writes a folder of images, or tars, into files that are read fast.",
        "ILSVRC2012 sets --labels=ILSVRC2012_validation_ground_truth.txt",
    ),
    "bench": (
        "Times the train step, or the input, on the devices at hand.",
        "step --config=configs/quickstart.py:mae",
    ),
}
OPTIONS = ("--help", "--version")


def describe():
    """The commands, a line and an example each."""
    lines = [
        f"vit_ssl_jax {__version__}: pre-training of Vision Transformers in JAX",
        "",
        *(f"  {name:<13}{text}" for name, (text, _) in COMMANDS.items()),
        "",
        "For example:",
        "",
        *(f"  python -m vit_ssl_jax.{n} {flags}" for n, (_, flags) in COMMANDS.items()),
        "",
        "A command's own flags: python -m vit_ssl_jax.NAME --help",
    ]
    return "\n".join(lines)


def explain(word):
    """The message for a word that is no command, with the likeliest that is one."""
    if word.startswith("-"):
        if word.lstrip("-").startswith(("config", "workdir")):
            return f"{word} is a flag of a command: python -m vit_ssl_jax.main {word}"
        known, kind = OPTIONS, "flag"
    else:
        known, kind = tuple(COMMANDS), "command"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}? There" if close else "There"
    return f"no {kind} {word!r}. {hint} is {', '.join(known)}"


def main():
    """Starts the command that is named; status 1 and a message where there is none."""
    word, *rest = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h", "help"):
        print(describe())
    elif word == "--version":
        print(f"vit_ssl_jax {__version__}")
    elif word in COMMANDS:
        sys.argv[1:] = rest
        runpy.run_module(f"vit_ssl_jax.{word}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: {explain(word)}")


if __name__ == "__main__":
    main()
