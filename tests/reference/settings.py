"""docs/reference/config.md: every key of a config, its meaning, range and values."""

import ast
import collections
import dataclasses
import functools
import importlib
import inspect

from tests import runs
from tests.reference import comments
from vit_ssl_jax import checks, evaluators, methods
from vit_ssl_jax.models import variants
from vit_ssl_jax.recipes import flatten

TEXT = """# Every key of a config

`--config.KEY=VALUE` changes a key of a recipe, as `--config.optim.lr=1e-3`;
`recipes.load(NAME, **{"optim.lr": 1e-3})` does so from Python. A key that a recipe
doesn't have, and a value out of its range, is an error that says so.

A recipe says every value: there are no hidden defaults. The last column has what the
recipes in `configs/` say, the most frequent value first. `None` is filled in from the
encoder that a run starts from. A few keys have a default, for a config may lack them.

This page is made from the code by `python -m tests.reference`: meanings are the comments
beside the fields and in [quickstart.py](../../configs/quickstart.py), ranges those that
are checked.
"""
SECTIONS = {
    "": "The run",
    "vit": "`vit`: the encoder",
    "optim": "`optim`: the optimizer and its schedules",
    "data": "`data`: the images",
    "mesh": "`mesh`: the devices",
    "online": "`online`: probes that ride along",
    "health": "`health`: the alarm for collapse",
    "pictures": "`pictures`: the objective, drawn",
    "nonfinite": "`nonfinite`: steps that are not finite",
    "spike": "`spike`: gradients that are far too large",
    "own otherwise": "`own` and `otherwise`: what `own.py` and `transfer_*.py` leave open",
}
# Recipes whose comments say what the keys of their kind mean, the first that has one.
EXPLAINED = ("quickstart.py", "own.py", "eval_small.py", "eval_folder.py")
OF_EVALUATIONS = ("variant", "eval_batch_size", "baselines")
MOST = 4  # values of a key that are shown


@functools.cache
def configs():
    """All recipes with all that they can be given: flat."""
    files = [(name, given) for name in runs.CONFIGS for given in runs.arguments(name)]
    return [flatten(runs.load(name, *given).to_dict()) for name, given in files]


@functools.cache
def said():
    """How often the recipes have which value: `{key as it is listed: Counter}`."""
    counts = collections.defaultdict(collections.Counter)
    for config in configs():
        for key, value in config.items():
            counts[listed(key, config)][repr(value)] += 1
    return counts


def listed(key, config):
    """A key of a config as the page has it: what stands for any task's is TASK's."""
    first, *rest = key.split(".")
    if first == "otherwise":
        return "otherwise.KEY"
    if first == "tasks":
        return ".".join((first, "TASK", *rest[1:]))
    if first == "evals" and rest[1] in evaluators.OF_SUITE:
        return f"evals.NAME.{rest[1]}"
    if first == "evals":
        return f"evals.{evaluators.kind(rest[0])}.{rest[1]}"
    if first == "method" and rest != ["name"]:
        return f"method({config['method.name']}).{rest[0]}"
    return key


@functools.cache
def explained():
    """Meanings of the keys that no `Config` has."""
    found = {}
    for name in EXPLAINED:
        found |= {k: v for k, v in comments.of_recipe(name).items() if not found.get(k)}
    return found | {"otherwise.KEY": found["otherwise"]}


@functools.cache
def choices():
    """Ranges of keys that must be one of some: what the package's `check_choice` asks."""
    found = {}
    for path in sorted(comments.PACKAGE.rglob("*.py")):
        text = path.read_text()
        if 'check_choice("config.' not in text:
            continue
        parts = path.relative_to(runs.ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "check_choice":
                key, _, known = node.args
                if isinstance(key, ast.Constant) and key.value.startswith("config."):
                    known = eval(ast.unparse(known), vars(module))
                    found[key.value.removeprefix("config.")] = one_of(known)
    return found


def one_of(known):
    """The range of a key that is one of some."""
    return ", ".join(f"`{name}`" for name in known)


def fields(config_class):
    """`{field: comment}` of a dataclass, inherited ones first."""
    found = {}
    for cls in reversed(config_class.__mro__[:-1]):
        path = inspect.getsourcefile(cls)
        found |= comments.read(path).entries(cls.__name__)
    return {name: found[name] for name in config_class.__dataclass_fields__}


def defaults(config_class):
    """`{field: default}` of those fields that have one."""
    named = config_class.__dataclass_fields__.items()
    missing = dataclasses.MISSING
    return {k: field.default for k, field in named if field.default is not missing}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A row: a key as it is shown, what it means, what it may be, what recipes say."""

    name: str
    meaning: str
    fits: str = ""
    said: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    default: object = None

    def row(self):
        """The row in Markdown."""
        fits = self.fits
        if not fits and self.said and set(self.said) <= {"True", "False"}:
            fits = one_of(("True", "False"))
        cells = [f"`{value}`" for value, _ in self.said.most_common(MOST)]
        more = len(self.said) - MOST
        cells += [f"{more} more"] if more > 0 else []
        if self.default is not None:
            cells.append(f"default `{self.default!r}`")
        cells = [
            f"`{self.name}`",
            self.meaning,
            fits,
            ", ".join(cells) or "in none",
        ]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def sections():
    """`(title, what to say first, [Key])` of the page, in order."""
    yield from of_run()
    yield "`method`: the objective", "`method.name` is a file of `methods/`.", []
    for name in methods.names():
        module = importlib.import_module(f"vit_ssl_jax.methods.{name}")
        yield (
            f"`method` of `{name}`",
            first_line(module),
            of_module(module, "method", name),
        )
    suite = comments.read("vit_ssl_jax/evaluators/__init__.py").entries("OF_SUITE")
    keys = [f"evals.NAME.{key}" for key in suite]
    suite = [
        Key(name=key, meaning=text, said=said()[key])
        for key, text in zip(keys, suite.values(), strict=True)
    ]
    text = "NAME is an evaluator's, and what follows an underscore tells two of them apart."
    yield "`evals`: of every evaluator, in a training recipe", text, suite
    for name in evaluators.names():
        module = evaluators.find(name)
        yield f"`evals.{name}`", first_line(module), of_module(module, "evals", name)
    yield from of_evaluations()


def of_run():
    """The sections of what every training recipe has."""
    ranges = choices() | {k: text for k, (text, _) in checks.RANGES.items()}
    order = list(explained())
    for section, title in SECTIONS.items():
        keys = [key for key in order if belongs(key, section) and key in said()]
        yield (
            title,
            sizes() if section == "vit" else "",
            [
                Key(
                    name=key,
                    meaning=explained()[key],
                    fits=ranges.get(key, ""),
                    said=said()[key]
                    if key != "recipe"
                    else collections.Counter(["NAME"]),
                    default=checks.LATER.get(key),
                )
                for key in keys
            ],
        )


def sizes():
    """The names of ViTs, and what may follow them."""
    extras = "; ".join(f"`{k}` {text}" for k, (_, text) in variants.EXTRAS.items())
    return (
        f"NAME of `vit.variant` is one of {one_of(variants.VARIANTS)}. What may follow "
        f"behind commas, as in `S/14,registers=4`: {extras}."
    )


def belongs(key, section):
    """Whether a key is of a section of SECTIONS, "" for those at the top."""
    first, inside, _ = key.partition(".")
    if key in OF_EVALUATIONS:
        return False
    return first in section.split() if inside else not section


def of_module(module, above, name):
    """The keys of the `Config` of a method's or an evaluator's module."""
    usual, where = defaults(module.Config), f"{above}.{name}"
    where = f"method({name})" if above == "method" else where
    return [
        Key(
            name=f"{above}.{key}" if above == "method" else f"{where}.{key}",
            meaning=meaning,
            fits=module.RANGES[key][0] if key in module.RANGES else "",
            said=said()[f"{where}.{key}"],
            default=usual.get(key),
        )
        for key, meaning in fields(module.Config).items()
    ]


def of_evaluations():
    """The section of what the recipes of `evaluate` have."""
    keys = [
        k for k in explained() if k in OF_EVALUATIONS or k.startswith("tasks.TASK.")
    ]
    text = "Of `eval_*.py` and `probe_*.py`, for `python -m vit_ssl_jax.evaluate`."
    yield (
        "`tasks`: what `evaluate` judges encoders by",
        text,
        [Key(name=key, meaning=explained()[key], said=said()[key]) for key in keys],
    )


def first_line(module):
    """What a module is, in a line."""
    return module.__doc__.partition("\n")[0]


def page():
    """The page in Markdown."""
    parts = [TEXT.strip()]
    for title, text, keys in sections():
        head = ["| key | meaning | range | in the recipes |", "|---|---|---|---|"]
        table = "\n".join([*head, *(key.row() for key in keys)]) if keys else ""
        parts += filter(None, (f"## {title}", text, table))
    return "\n\n".join(parts) + "\n"
