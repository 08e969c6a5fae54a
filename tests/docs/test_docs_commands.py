"""Every command of the documentation is one that its program takes, and Python compiles."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests import forked, runs
from tests.docs import pages, settings

COMMANDS = pages.distinct(pages.commands())
OURS = [c for c in COMMANDS if c.words[:2] == ("python", "-m")]
LAUNCHED = [c for c in COMMANDS if re.search(r"(^| )launch/", " ".join(c.words[:2]))]


def where(command):
    """A command and its place, for a message."""
    return f"{command.page}:{command.line}: {command.text}"


WRONG = {  # a wrong command, and what is said of it
    "main --confg=configs/own.py": "confg",
    "main --config=configs/mea_vitb.py": "mea_vitb",
    "main --config=configs/mae_vitb.py --config.optim.lrr=1": "optim.lrr",
    "main --config=configs/mae_vitb.py --config.optim.lr=-1": "config.optim.lr: -1.0",
    "main --config=configs/mae_vitb.py --config.evals.knn.k=(0,)": "config.evals.knn.k: (0,)",
    "main --config=configs/mae_vitb.py --config.method.mask_ratio=2.0": "mask_ratio: 2.0",
    "results --formt=csv .": "--formt=csv",
}


@pytest.fixture(scope="module")
def read():
    """Commands of the package, their flags and configs read: `{command: result}`."""
    ours = [c for c in OURS if c.words[2].startswith("vit_ssl_jax")]
    words = [settings.fill(c.words[2:]) for c in ours]
    words += [f"vit_ssl_jax.{text}".split() for text in WRONG]
    words = [w + ["--workdir=w"] * (w[0] == "vit_ssl_jax.main") for w in words]
    done = forked.run([{"argv": argv, "dry": True} for argv in words])
    return dict(zip([*ours, *WRONG], done, strict=True))


def test_flags_keys_and_values_are_known(read):
    right = {command: got for command, got in read.items() if command not in WRONG}
    wrong = [f"{where(c)}\n{got['said']}" for c, got in right.items() if got["status"]]
    assert not wrong, "\n\n".join(wrong)
    assert len(right) > 10


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_command_is_noticed(read, text):
    assert read[text]["status"] and WRONG[text] in read[text]["said"], read[text]


def test_modules_of_the_tests_exist():
    for command in OURS:
        module = command.words[2]
        assert importlib.util.find_spec(module), where(command)
        for word in command.words[3:] if module == "pytest" else ():
            if word.startswith("tests/"):
                assert (runs.ROOT / word.partition("::")[0]).exists(), where(command)


@pytest.mark.parametrize("command", LAUNCHED, ids=lambda c: c.text[:60])
def test_a_launch_script_takes_its_flags(command, tmp_path):
    """By --dry_run, which prints what it would start."""
    done = launch(command, tmp_path)
    assert done.returncode == 0, f"{where(command)}\n{done.stderr}"
    assert done.stdout.strip()


def launch(command, folder):
    """What a launch script prints with --dry_run."""
    words = settings.fill(command.words)
    if words[0] == "python":
        words[0] = sys.executable
    at = 2 if words[0] == sys.executable or "tpu_vm" in words[0] else 1
    words[at:at] = ["--dry_run"] * ("--dry_run" not in words)
    words[at:at] = settings.GCLOUD * ("tpu_vm" in words[0])
    if "--sweep=lr.py" in words:  # which the page shows
        (sweep,) = (b for b in pages.blocks("python") if "def get_hyper" in b.body)
        (folder / "lr.py").write_text(sweep.body)
        words[words.index("--sweep=lr.py")] = f"--sweep={folder}/lr.py"
    return subprocess.run(
        words,
        cwd=runs.ROOT,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_other_programs_are_known():
    """What is started that isn't ours is named, and so is what is installed."""
    known = (*settings.OTHERS, "python", "launch/")
    for command in COMMANDS:
        assert command.words[0].startswith(known), where(command)
        for extra in re.findall(r"\.\[(\w[\w-]*)\]", command.text):
            assert f'"{extra}": [' in (runs.ROOT / "setup.py").read_text(), where(
                command
            )


def test_a_command_runs_or_a_reason_says_why_not():
    for command in COMMANDS:
        ours = command in OURS and command.words[2].startswith("vit_ssl_jax")
        why = settings.find(settings.LEFT_OUT, command.text)
        assert ours or command in LAUNCHED or why, where(command)


@pytest.mark.parametrize("words", [*settings.LEFT_OUT, *settings.ENDS])
def test_what_is_left_out_is_in_the_documentation(words):
    assert [c for c in COMMANDS if words in c.text]


def test_blocks_are_bash_python_or_text():
    for block in pages.blocks():
        assert block.language in pages.LANGUAGES, f"{block.page}:{block.line}"


def test_no_command_stands_outside_of_a_block():
    """An indented one, as Markdown has them too, wouldn't be tested."""
    for path in pages.paths():
        text = pages.FENCE.sub("", path.read_text())
        found = re.findall(r"^ {4}(?:\$ )?(?:python|pip|launch/).*", text, re.MULTILINE)
        assert not found, f"{pages.name(path)}: {found}"


@pytest.mark.parametrize(
    "block", pages.blocks("python"), ids=lambda b: f"{b.page}:{b.line}"
)
def test_python_compiles_and_imports_what_exists(block):
    tree = ast.parse(block.body)
    compile(tree, block.page, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


TEXT = """
```bash
AT="--name=a --zone=b"   # where
run/it $AT \\
    --more && then "a b" > file.md
```

    ```text
    indented
    ```
"""


def test_how_a_page_is_read():
    bash, text = pages.read_blocks(TEXT)
    assert (text.language, text.body, text.line) == ("text", "indented\n", 8)
    first, second = pages.read_commands(bash)
    assert first.words == ("run/it", "--name=a", "--zone=b", "--more")
    assert second.words == ("then", "a b")
    assert pages.distinct([second, first, second]) == [second, first]


def test_placeholders_are_whole_words():
    words = ["--config.data.dir=DIR", "DIRECTORY", "a.DIR", "own.py:METHOD", "'IMAGES'"]
    filled = ["--config.data.dir=dir", "DIRECTORY", "a.DIR", "own.py:mae", "'photos'"]
    assert settings.fill(words) == filled
