"""The comments beside the code: what a field, a key or an entry of a dict means.

A comment belongs to an entry where it ends its line, or where it stands in the lines
above by itself.
"""

import ast
import functools
import io
import pathlib
import tokenize

from tests import runs

PACKAGE = runs.ROOT / "vit_ssl_jax"


class Source:
    """A file, and the comments in it."""

    def __init__(self, path):
        text = pathlib.Path(path).read_text()
        self.tree = ast.parse(text)
        self._behind, self._alone = {}, {}  # by line
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                alone = not token.line[: token.start[1]].strip()
                where = self._alone if alone else self._behind
                where[token.start[0]] = token.string.lstrip("# ")

    def beside(self, first, last):
        """The comment of the lines `first` to `last`, "" where there is none."""
        for line in range(first, last + 1):
            if line in self._behind:
                return self._behind[line]
        above = []
        while (first := first - 1) in self._alone:
            above.insert(0, self._alone[first])
        return " ".join(above)

    def part(self, name):
        """What is called `name` at the top of the file: a function, class or value."""
        for node in self.tree.body:
            targets = getattr(node, "targets", [])
            names = [getattr(node, "name", "")] + [ast.unparse(t) for t in targets]
            if name in names:
                return node
        raise KeyError(name)

    def entries(self, *names):
        """`{key: comment}` of what is in parts of the file: fields, and keys of dicts.

        Also of `x[key] = ...` and of the strings of a tuple; an f-string's holes are its
        values' names in braces.
        """
        found = {}
        for name in names:
            nodes = ast.walk(self.part(name))
            keyed = [each for node in nodes for each in _keyed(node)]
            for key, first, last in sorted(keyed, key=lambda each: each[1:]):
                found[key] = found.get(key) or self.beside(first, last)
        return found


@functools.cache
def read(path):
    """The `Source` of a file, named from the repository's root."""
    return Source(runs.ROOT / path)


def _keyed(node):
    """The keys that stand in a node of the syntax: `(key, first line, last line)`."""
    pairs = []
    if isinstance(node, ast.AnnAssign):
        return [(ast.unparse(node.target), node.lineno, node.end_lineno)]
    if isinstance(node, ast.Tuple):
        pairs = [(x, x) for x in node.elts]
    if isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values, strict=True))
    if isinstance(node, ast.DictComp):
        pairs = [(node.key, node.value)]
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        pairs = [(node.targets[0].slice, node.value)]
    named = [(_text(key), key.lineno, value.end_lineno) for key, value in pairs if key]
    return [each for each in named if each[0]]


def _text(node):
    """A string or f-string as it is shown; "" for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(
        part.value
        if isinstance(part, ast.Constant)
        else f"{{{ast.unparse(part.value).split('.')[-1].lstrip('_')}}}"
        for part in node.values
    )


def of_recipe(name):
    """`{dotted key: comment}` of a recipe; a key by task is below `tasks.TASK`."""
    source, found = read(f"configs/{name}"), {}

    def note(key, value, first):
        inner = value.value if isinstance(value, ast.DictComp) else value
        below = key + ".TASK" * isinstance(value, ast.DictComp)
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "dict":
            for word in inner.keywords:
                note(f"{below}.{word.arg}", word.value, word.lineno)
        found[key] = source.beside(first, value.end_lineno)

    for node in ast.walk(source.part("get_config")):
        target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
        if target.startswith("config."):
            note(target.removeprefix("config."), node.value, node.lineno)
    return found
