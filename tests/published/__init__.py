"""What was published, value by value, beside the recipes: the tables of docs/recipes.md.

    python -m tests.published > docs/recipes.md

A family is a published recipe in its sizes. Its rows say what the released code and the
paper have; ours are read from `configs/`. Where ours is another, the row says why.
"""

import dataclasses

from tests import runs
from vit_ssl_jax.recipes import flatten

ABSENT = "-"  # published doesn't say


@dataclasses.dataclass(frozen=True)
class Row:
    """A value of a family: released and in the paper, one for all sizes or by size."""

    key: str
    released: object = ABSENT
    paper: object = ABSENT
    why: str = ""

    def published(self, label):
        """What a size is measured by: the released value, else the paper's."""
        by_size = [
            x.get(label, ABSENT) if isinstance(x, dict) else x
            for x in (self.released, self.paper)
        ]
        return next((x for x in by_size if x != ABSENT), ABSENT)


@dataclasses.dataclass(frozen=True)
class Family:
    """A published recipe: where it is from, and our files by size."""

    title: str
    source: str
    files: dict  # size: (file, argument or "")
    rows: tuple
    whole: bool = True  # every value that has a meaning has a row

    def ours(self):
        """The recipes' values: `{size: {dotted key: value}}`."""
        return {
            label: flatten(runs.load(file, *filter(None, [name])).to_dict())
            for label, (file, name) in self.files.items()
        }


# No recipe's business: where and how fast, and what only evaluates.
NEUTRAL = {
    *("vit.remat", "vit.unroll", "vit.kernels", "method.name", "accum"),
    *("evals.probe.accum", "evals.probe.checkpoint_every", "evals.probe.seed"),
    *("evals.probe.every_epochs", "evals.probe.augment", "data.resize", "data.squash"),
}
# Values that switch a part off; with them no row is needed.
OFF = {
    "optim.ipe_scale": 1.0,
    "optim.layer_decay": 1.0,
    "optim.train_blocks": -1,
    "optim.clip": 0.0,
    "optim.clip_each": 0.0,
    "vit.dropout": 0.0,
    "vit.droppath": 0.0,
    "data.pad": 0,
    "steps": 0,
    "data.randaugment": "",
    "data.train_resize": 0,
    "data.train_size": (),
    "method.label_smoothing": 0.0,
    "method.mixup": 0.0,
    "method.cutmix": 0.0,
    "method.erase": 0.0,
    "method.ema": 0.0,
    "method.mix_groups": 1,
    "method.representation": 0,
    "method.smoothing": 0.0,
    "method.mega": 0,
    "method.add_cls": False,
    "method.shuffle": False,
    "evals.probe.epoch_steps": 0,
    "evals.probe.step_epochs": 0.0,
    "evals.probe.warmup_epochs": 0.0,
    "evals.probe.milestones": (),
    "evals.probe.rate_end": 0.0,
    "evals.probe.nesterov": False,
    "evals.probe.decay_bias": False,
}
SECTIONS = ("method.", "vit.", "optim.", "evals.probe.")
IMAGES = ("size", "crop", "ratio", "flip", "interpolation", "mean", "std")
IMAGES += ("pad", "randaugment", "train_resize", "train_size")


def uncovered(family):
    """Keys of the recipes that have a meaning but no row: `[(size, key)]`."""
    rows, missing = {row.key for row in family.rows}, []
    for label, config in family.ours().items():
        trained = "optim.lr" in config
        keys = [key for key in config if key.startswith(SECTIONS)]
        if trained:
            keys += ["batch_size", "epochs", "steps"] + [f"data.{x}" for x in IMAGES]
        mixed = config.get("method.mixup", 0) or config.get("method.cutmix", 0)
        for key in keys:
            mixing = key in ("method.mix_prob", "method.mix_switch") and not mixed
            off = key in OFF and config[key] == OFF[key]
            if not (key in rows or key in NEUTRAL or off or mixing):
                missing.append((label, key))
    return missing


def moved(family):
    """Values that aren't the published ones: `[(row, size, ours, published)]`."""
    found, ours = [], family.ours()
    for row in family.rows:
        for label, config in ours.items():
            published = row.published(label)
            if config.get(row.key, ABSENT) != published:
                found.append((row, label, config.get(row.key, ABSENT), published))
    return found


def show(value, sizes=()):
    """A cell: one value of all `sizes`, or those by size."""
    if isinstance(value, dict):
        groups = {}
        for label, one in value.items():
            groups.setdefault(show(one), []).append(label)
        if len(groups) == 1 and set(value) == set(sizes):
            (text,) = groups
            return text
        return "; ".join(
            f"{', '.join(names)}: {text}" for text, names in groups.items()
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return "(" + ", ".join(show(x) for x in value) + ")"
    return str(value).replace("|", "\\|")


def table(family):
    """A family in Markdown."""
    files = ", ".join(
        f"{label}: `{':'.join(filter(None, given))}`"
        for label, given in family.files.items()
    )
    lines = [f"## {family.title}", "", f"{files}.", "", f"{family.source}", ""]
    lines += ["| value | ours | released | paper | why |", "|---|---|---|---|---|"]
    ours = family.ours()
    for row in family.rows:
        here = {label: config.get(row.key, ABSENT) for label, config in ours.items()}
        cells = [show(x, ours) for x in (here, row.released, row.paper)]
        lines.append("| " + " | ".join([f"`{row.key}`", *cells, row.why]) + " |")
    return "\n".join(lines)
