"""docs/reference/metrics.md: every metric that a run or an evaluation writes.

A metric's meaning is the comment beside the line that makes it.
"""

import importlib
import re

from tests.reference import comments
from vit_ssl_jax import evaluators, methods

TEXT = """# Every metric

`metrics.jsonl` in the workdir has a line a row: the step, and metrics by these names.
TensorBoard and a tracker get the same names; the console and the report show a choice of
them. `evaluations/*.json`, which `python -m vit_ssl_jax.evaluate` writes, has the names
below `eval/` behind the task's: `TASK/knn/...`.

Braces stand for values of the config, which are a part of the name: a number never loses
its protocol. Accuracies are from 0 to 1. This page is made from the code by
`python -m tests.reference`: meanings are the comments beside the lines that make the
metrics.
"""
RUN = (  # file, part of it, what is put in front
    ("vit_ssl_jax/loop.py", "write_metrics", ""),
    ("vit_ssl_jax/workdir/metrics.py", "Meter", ""),
    ("vit_ssl_jax/step.py", "train_step", ""),
    ("vit_ssl_jax/optim.py", "make_optimizer", "train/"),
    ("vit_ssl_jax/skipping.py", "leave_out", ""),
)
HEALTH = (
    ("vit_ssl_jax/monitors/health.py", "make_measure", ""),
    ("vit_ssl_jax/monitors/health.py", "Monitor", ""),
)
ONLINE = (("vit_ssl_jax/monitors/online.py", "Probe", ""),)
FOLDER = "vit_ssl_jax/evaluators"
EVALUATORS = {  # evaluator: the part of a file, and what stands in front of the names
    "classify": (f"{FOLDER}/accuracy.py", "score", ""),
    "depth": (f"{FOLDER}/dense/depth_loss.py", "errors", "{protocol}/"),
    "fewshot": (f"{FOLDER}/fewshot.py", "evaluate", ""),
    "knn": (f"{FOLDER}/knn.py", "evaluate", ""),
    "linear": (f"{FOLDER}/linear.py", "evaluate", ""),
    "pretext": (f"{FOLDER}/pretext.py", "make_forward", ""),
    "probe": (f"{FOLDER}/probe/train.py", "judge", ""),
    "segmentation": (f"{FOLDER}/segmentation.py", "score", "{protocol}/"),
    "uniformity": (f"{FOLDER}/uniformity.py", "make", ""),
}
NOTES = {
    "classify": "`eval/classify/ema/...` is the same of the averaged weights, where a run "
    "keeps those.",
    "depth": "`{protocol}` has the layers, rates and steps of the head.",
    "knn": "`_standardized` follows the pool where features are standardized.",
    "pretext": "Also every metric of the objective (above): `eval/pretext/top1`.",
    "probe": "`{name}` has the readout, optimizer, rates and images of a head. `{how}` is "
    "`best`, or `best_on_queries` where no split chooses a head.",
    "segmentation": "`{protocol}` has the layers, rates and steps of the head.",
}
POOLED = ("fewshot", "knn", "linear")  # whose names get the pool, by `banks`


def sections():
    """`(title, note, {name: meaning})` of the page, in order."""
    yield "Of every run", "", of_parts(RUN)
    for name in methods.names():
        module = importlib.import_module(f"vit_ssl_jax.methods.{name}")
        found = of_method(name)
        note = module.__doc__.partition("\n")[0]
        yield (
            f"Of `{name}`",
            note if found else f"{note} No other than the loss.",
            found,
        )
    yield (
        "Health",
        "Of `config.health`: the features of images of a batch.",
        of_parts(HEALTH),
    )
    yield "Online probes", "Of `config.online`.", of_parts(ONLINE)
    for name in evaluators.names():
        yield f"Evaluator `{name}`", NOTES.get(name, ""), of_evaluator(name)
    yield (
        "Baselines",
        "",
        {
            "eval/untrained/{metric}": "of the encoder before training (`eval_folder.py`)",
            "eval/raw_pixels/{metric}": "of pixels in the place of features (the same)",
        },
    )


def of_parts(parts):
    """`{name: meaning}` of parts of files, without keys that nothing is said of."""
    found = {}
    for path, part, above in parts:
        entries = comments.read(path).entries(part)
        found |= {above + key: text for key, text in entries.items() if text}
    return found


def of_method(name):
    """The metrics of an objective's loss."""
    path = f"vit_ssl_jax/methods/{name}.py"
    parts = ["loss_fn"] + ["mask_metrics"] * (name == "ijepa")
    found = of_parts([(path, part, "") for part in parts])
    return {k if "/" in k else f"train/{k}": text for k, text in found.items()}


def of_evaluator(name):
    """The metrics of an evaluator."""
    found = of_parts([EVALUATORS[name]])
    if name in POOLED:
        found = {key.replace("/", "_{pool}/"): text for key, text in found.items()}
    return {f"eval/{name}/{key}": text for key, text in found.items()}


def names():
    """All names and patterns of the page."""
    return [key for _, _, found in sections() for key in found]


def explain(metric):
    """The name or pattern of the page that a metric of a run has; None: there is none."""
    parts = metric.split("/")
    if parts[0] == "eval" and parts[1] in ("untrained", "raw_pixels"):
        return f"eval/{parts[1]}/{{metric}}"
    if parts[:2] == ["eval", "pretext"] and parts[2:] != ["loss"]:
        own = "/".join(parts[2:])
        return explain(own if "/" in own else f"train/{own}")
    if parts[0] == "eval":
        parts[1] = evaluators.kind(parts[1])
        parts = [part for part in parts if (part, parts[1]) != ("ema", "classify")]
    metric = "/".join(parts).replace("_standardized/", "/")
    return next((name for name in names() if pattern(name).fullmatch(metric)), None)


def pattern(name):
    """The regular expression of a name with braces."""
    pieces = re.split(r"\{\w+\}", name)
    return re.compile("[^/]+".join(map(re.escape, pieces)))


def page():
    """The page in Markdown."""
    parts = [TEXT.strip()]
    for title, note, found in sections():
        head = ["| metric | meaning |", "|---|---|"]
        rows = [f"| `{key}` | {text} |" for key, text in found.items()]
        parts += filter(
            None, (f"## {title}", note, "\n".join([*head, *rows] * bool(rows)))
        )
    return "\n\n".join(parts) + "\n"
