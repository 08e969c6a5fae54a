"""`python -m vit_ssl_jax`: what it lists, starts and refuses, and what --help says."""

import pathlib
import subprocess
import sys

import pytest

import vit_ssl_jax
from vit_ssl_jax import __main__ as cli

PACKAGE = pathlib.Path(vit_ssl_jax.__file__).parent
PRIVATE = {"plan.kernel_cost.alone"}  # started by other commands, with a file of theirs


def commands():
    """Names of all modules that can be started."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if '__name__ == "__main__"' in path.read_text():
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            found.add(name.removesuffix("__main__").removesuffix("."))
    return found - PRIVATE - {""}


def start(*words):
    """Runs `python -m vit_ssl_jax` to its end."""
    command = [sys.executable, "-m", "vit_ssl_jax", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_command_is_listed_with_an_example():
    done = start()
    assert done.returncode == 0
    assert {"main", "bench", "plan.matrix"} <= commands()
    for name in commands():
        assert f"\n  {name} " in done.stdout
        assert f"\n  python -m vit_ssl_jax.{name} " in done.stdout
    assert set(cli.COMMANDS) == commands()
    assert start("--help").stdout == done.stdout


def test_the_list_loads_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import vit_ssl_jax.__main__ as m;"
        "m.describe(); new = {n.split('.')[0] for n in set(sys.modules) - before};"
        "sys.exit(str(new - sys.stdlib_module_names - {'vit_ssl_jax'} or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


def test_version():
    assert start("--version").stdout == f"vit_ssl_jax {vit_ssl_jax.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "error: no command 'train'. Did you mean main? There is main, "),
        (["evalutae"], "Did you mean evaluate?"),
        (["xyzzy"], "error: no command 'xyzzy'. There is main, "),
        (["--verson"], "error: no flag '--verson'. Did you mean --version?"),
        (["--config=a.py"], "of a command: python -m vit_ssl_jax.main --config=a.py"),
        (["main", "--confg=a.py"], "flag 'confg'. Did you mean: config"),
        (["main", "trian"], "error: unexpected argument 'trian'"),
        (
            ["main", "--config", "nope.py", "--workdir=w"],
            "error: nope.py doesn't exist",
        ),
        (["main"], "error: give --config=configs/NAME.py and --workdir=DIR"),
        (["bench", "stp"], "error: say python -m vit_ssl_jax.bench step"),
        (["results", "--formt=csv", "."], "unrecognized arguments: --formt=csv"),
        (
            [
                *("evaluate", "--config=configs/eval_folder.py:photos"),
                *("--checkpoint=none", "--config.tasks.phots.size=(32,32)"),
            ],
            "no key tasks.phots.size. Did you mean tasks.photos?",
        ),
        (
            [
                "evaluate",
                "--config=configs/eval_folder.py:photos",
                "--config.evals.x=1",
            ],
            "no key evals.x; config.evals has fewshot, knn, linear",
        ),
    ],
)
def test_an_unknown_word_or_flag_is_one_message(words, said):
    if words == ["main", "trian"]:
        words += ["--config=configs/quickstart.py", "--workdir=runs/none"]
    done = start(*words)
    check_message(done, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "error: --config: SyntaxError: "),
        ("import nothere", "error: --config: ModuleNotFoundError: No module named"),
        (
            "def get_config(): return nothere",
            "NameError: name 'nothere' is not defined",
        ),
    ],
)
def test_a_config_that_is_no_python_is_one_message(tmp_path, text, said):
    (tmp_path / "mine.py").write_text(text)
    done = start("main", f"--config={tmp_path}/mine.py", f"--workdir={tmp_path}/w")
    check_message(done, said)
    assert not (tmp_path / "w").exists()


def check_message(done, said):
    """A command has failed with what is said, and without a traceback."""
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_of_a_command_names_its_flags():
    for name, flags in dict(
        main=["config", "workdir"],
        bench=["config", "twin"],
        doctor=["config", "workdir", "json", "num_processes"],
    ).items():
        words = [name, "step"] if name == "bench" else [name]
        done = start(*words, "--help")
        for flag in flags:
            assert f"  --{flag}: " in done.stdout.partition("Flags:")[2], (name, flag)
        assert done.returncode == 0
        assert ("quickstart.py" in done.stdout) == ("config" in flags)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--config=configs/quickstart.py", "--batch_size=3"],
            "say --config.batch_size",
        ),
        (["--config=configs/quickstart.py", "--lr=3"], "or --config.optim.lr=VALUE"),
        (["--config.batch_size=3"], "give --config=configs/NAME.py, too"),
        (["--config=configs/own.py"], "give the path of a folder of images: --config"),
        (["--config=configs/own.py:mea"], "say own.py:METHOD or own.py:METHOD,SIZE"),
        (["--config=configs/eval_vtab.py"], "eval_vtab is an evaluation"),
    ],
)
def test_natural_mistakes_are_answered_before_jax_is_loaded(words, said):
    code = (
        "import runpy, sys; sys.modules['jax'] = None; sys.argv = ['main', "
        "'--workdir=nowhere', *sys.argv[1:]];"
        "runpy.run_module('vit_ssl_jax.main', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said.lower() in line.lower()
