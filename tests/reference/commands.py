"""docs/reference/commands.md: what each command says for --help."""

import functools

from tests import forked
from vit_ssl_jax import __main__ as cli

TEXT = """# Commands

`python -m vit_ssl_jax` lists them, and `python -m vit_ssl_jax.NAME --help` prints what is
below, made by `python -m tests.reference`. A command with `--config` takes every key of
the recipe as a flag, too: [config.md](config.md) has them. Where a command also lists the
recipes they are left out here.
"""
RECIPES = "\n\n--config.KEY=VALUE changes a value of the recipe, as"


@functools.cache
def helps():
    """`{command: its help}`."""
    words = [[f"vit_ssl_jax.{name}", "--help"] for name in cli.COMMANDS]
    words[list(cli.COMMANDS).index("bench")].insert(1, "step")
    done = forked.run([{"argv": argv, "dry": True} for argv in words])
    failed = [one["said"] for one in done if one["status"]]
    assert not failed, failed
    texts = [one["said"].partition(RECIPES)[0].strip() for one in done]
    return dict(zip(cli.COMMANDS, texts, strict=True))


def page():
    """The page in Markdown."""
    parts = [TEXT.strip()]
    for name, text in helps().items():
        what, example = cli.COMMANDS[name]
        parts += [f"## {name}", what]
        parts += [f"```bash\npython -m vit_ssl_jax.{name} {example}\n```"]
        parts += [f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"
