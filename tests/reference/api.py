"""docs/reference/api.md: what is meant to be called from Python, by its docstrings."""

import ast
import importlib
import inspect
import re
import textwrap

from tests.reference import comments

TEXT = """# Python

What the commands do without a flag, and what goes into your own program. All of it raises
`vit_ssl_jax.errors.UserError` for what a user can mend, with a message that says how.
Shapes are in brackets: `B` batch, `H W` pixels, `C` channels, `N` tokens, `D` width. This
page is made from the docstrings by `python -m tests.reference`.
"""
PARTS = {  # heading: what is below it, module by module
    "Train and evaluate": {
        "vit_ssl_jax.recipes": ("load",),
        "vit_ssl_jax.train": ("train",),
        "vit_ssl_jax.evaluate": ("evaluate",),
    },
    "Use an encoder": {
        "vit_ssl_jax.encoder": (
            *("load", "Encoder", "Encoder.apply", "Encoder.encode"),
            "Encoder.features",
        ),
        "vit_ssl_jax.features": ("write_features",),
        "vit_ssl_jax.predict": ("predict",),
    },
    "Look at it": {
        "vit_ssl_jax.pictures": ("draw",),
        "vit_ssl_jax.visualize": ("draw",),
        "vit_ssl_jax.report.__main__": ("report",),
        "vit_ssl_jax.results.__main__": ("results",),
    },
    "Weights of others": {
        "vit_ssl_jax.exporting": ("export",),
    },
    "Plan, and look into a step": {
        "vit_ssl_jax.plan": ("plan",),
        "vit_ssl_jax.replay": ("replay",),
    },
    "A method of your own": {
        "vit_ssl_jax.methods": ("Method", "Context", "make"),
    },
    "An evaluator of your own": {
        "vit_ssl_jax.evaluators": ("", "Wants", "Inputs"),
    },
}
AS = {"vit_ssl_jax.encoder.load": "vit_ssl_jax.load"}  # as users call it


def item(module, name):
    """A part's heading, signature and docstring in Markdown; "" is the module itself."""
    owner = importlib.import_module(module)
    called = AS.get(f"{module}.{name}", f"{module}.{name}").replace(".__main__", "")
    if not name:
        return f"### {module}\n\n{text_of(owner)}"
    thing = owner
    for part in name.split("."):
        thing = getattr(thing, part)
    code = fields(owner, name) if inspect.isclass(thing) else signature(owner, name)
    return f"### {called}\n\n```python\n{code}\n```\n\n{text_of(thing)}"


def text_of(thing):
    """A docstring; code in it stays code, and its arguments are a list."""
    text = inspect.cleandoc(thing.__doc__)
    return re.sub(r"^([a-z_]+(?:, [a-z_]+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)


def source(owner, name):
    """The `Source` of a module, and the node of a function or class in it."""
    read, node = comments.read(inspect.getsourcefile(owner)), None
    for part in name.split("."):
        body = read.tree.body if node is None else node.body
        node = next(x for x in body if getattr(x, "name", "") == part)
    return node


def signature(owner, name):
    """A function's first lines, as they are written, without what it does."""
    node = source(owner, name)
    lines = inspect.getsource(owner).splitlines()
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    return textwrap.dedent("\n".join(head)) + " ..."


def fields(owner, name):
    """A class and its fields, with what is said of them."""
    node = source(owner, name)
    lines = inspect.getsource(owner).splitlines()
    own = [x for x in node.body if isinstance(x, ast.AnnAssign)]
    if not own:
        return f"class {name}: ..."
    first = own[0].lineno
    while lines[first - 2].lstrip().startswith("#"):
        first -= 1
    body = lines[first - 1 : own[-1].end_lineno]
    return "\n".join([f"class {name}:", *body])


def page():
    """The page in Markdown."""
    parts = [TEXT.strip()]
    for title, modules in PARTS.items():
        parts.append(f"## {title}")
        parts += [
            item(module, name) for module, names in modules.items() for name in names
        ]
    return "\n\n".join(parts) + "\n"
