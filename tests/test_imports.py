"""Who may import whom, read from the source; and the sizes that keep files readable."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "vit_ssl_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "configs").glob("*.py"))

# Arrows point down: a part imports itself and what lies on a lower floor.
FLOORS = [
    ["errors"],
    ["recipes", "distributed", "own", "clipping", "skipping"],
    ["host"],
    [
        "command",
        "arguments",
        "kernels",
        "ops",
        "partition",
        "optim",
        "checks",
        "workdir",
        "xla",
    ],
    ["models", "accumulation"],
    ["methods"],
    ["step", "freezing", "data", "interop"],
    ["evaluators", "build", "console", "memory", "tokens"],
    ["weights", "openers"],
    ["pretrained", "train_data"],
    ["monitors", "finished", "remedies", "doctor", "results", "tasks"],
    ["fit", "report", "drawing"],
    ["starting", "pictures", "album", "device_cache"],
    ["closing", "feeds", "loop"],
    ["train", "judging", "plan", "encoder", "classifier", "exporting", "replay"],
    [
        "main",
        "evaluate",
        "bench",
        "features",
        "predict",
        "visualize",
        "convert",
        "__main__",
    ],
]
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
# Parts that may import less than all that lies below.
ONLY = {
    "ops": {"ops"},
    "kernels": {"kernels"},
    "partition": {"errors"},
    "optim": {"errors", "clipping"},
    "models": {"models", "kernels", "ops", "partition", "errors"},
    "methods": {"methods", "models", "ops", "checks", "errors"},
    "data": {"data", "errors"},
}
# Other people's packages that a part must do without, or that only it may import.
NEVER = {
    "ops": {"flax", "optax", "ml_collections"},
    "kernels": {"flax", "optax", "ml_collections"},
    "models": {"optax", "ml_collections"},
    "methods": {"ml_collections"},
    "data": {"jax", "flax", "optax", "ml_collections"},
    "report": {"jax", "flax", "optax"},
}
# Who may import what reads and writes the files of others.
CONVERTERS = {"interop", "weights", "exporting", "convert"}
ALONE = {
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "tensorflow": set(),
    "torch": {"interop", "bench"},
}


def name(path):
    """A file as its reader calls it."""
    return str(path.relative_to(ROOT))


def part_of(path):
    """The file or folder at the top of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imports(path):
    """Dotted names of all that a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def ours(path):
    """What a file imports of this package, as `["methods", "Method"]`."""
    split = (full.split(".") for full in imports(path))
    return [parts[1:] for parts in split if parts[0] == "vit_ssl_jax" and parts[1:]]


def others(path):
    """The packages of others that a file imports."""
    return {full.split(".")[0] for full in imports(path)} - {"vit_ssl_jax"}


def test_the_reader_of_imports_sees_them():
    """So that an empty list means that there are none."""
    assert ["ops", "masks"] in ours(PACKAGE / "methods" / "mae.py")
    assert ["methods", "Method"] in ours(PACKAGE / "step.py")
    assert "optax" in others(PACKAGE / "optim.py")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path):
    part = part_of(path)
    if part == "__init__":
        used = {used[0] for used in ours(path)}
        assert used <= {"encoder", "interop"}  # resolved when asked for
        return
    assert part in FLOOR, f"{part} has no floor: give it one in {name(ROOT / __file__)}"
    for used in ours(path):
        if used[0] == "__version__":
            continue
        below = {p for p, floor in FLOOR.items() if floor < FLOOR[part]} | {part}
        allowed = ONLY.get(part, below if part in CONVERTERS else below - {"interop"})
        assert used[0] in allowed, f"{name(path)} imports {'.'.join(used)}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_packages_of_others_stay_where_they_belong(path):
    part = part_of(path)
    unwanted = others(path) & NEVER.get(part, set())
    assert not unwanted, f"{name(path)} imports {', '.join(unwanted)}"
    for package, owners in ALONE.items():
        if package in others(path):
            assert part in owners, f"{name(path)} imports {package}"


def test_a_method_imports_no_other_and_nobody_imports_one():
    single = {f.stem for f in (PACKAGE / "methods").glob("*.py")} - {"__init__"}
    assert {"mae", "ijepa"} <= single
    for path in FILES:
        for used in ours(path):
            named = used[0] == "methods" and len(used) > 1 and used[1] in single
            assert not named, f"{name(path)} imports {'.'.join(used)}"


def test_a_recipe_imports_only_its_dict():
    assert RECIPES
    for path in RECIPES:
        assert {full.split(".")[0] for full in imports(path)} == {"ml_collections"}


def test_a_method_loads_no_input_pipeline_and_no_other_framework():
    code = """
import sys
import vit_ssl_jax.methods.mae
heavy = {"tensorflow", "torch", "grain", "tensorflow_datasets"} & set(sys.modules)
sys.exit(f"loads {', '.join(heavy)}" if heavy else 0)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= 250, f"{name(path)} has {lines} lines: split it (250)"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            where = f"{name(path)}:{node.lineno} {node.name}"
            assert lines <= 50, f"{where} has {lines} lines: split it (50)"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_more_than_six_arguments_are_named(path):
    """Kernels apart, whose references Pallas gives by position."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            listed = [a.arg for a in node.args.args if a.arg != "self"]
            kernel = bool(listed) and listed[-1].endswith(("_ref", "_grad"))
            where = f"{name(path)}:{node.lineno} {node.name}"
            assert len(listed) <= 6 or kernel, f"{where} has {len(listed)}: put a *"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            where = f"{name(path)}:{node.lineno} {node.func.id}"
            assert len(node.args) <= 6, f"{where}: name the arguments"


def test_there_is_no_drawer():
    for path in FILES:
        assert path.stem not in {"utils", "common", "helpers", "misc"}, name(path)
