"""Every command of the documentation runs, small, page by page; and so does its Python.

The commands of all pages share a folder, in their order: a run that one trains is there
for those after it.
"""

import pytest

from tests import forked
from tests.docs import material, pages, settings

COMMANDS = pages.distinct(pages.commands())
RUN = [
    c
    for c in COMMANDS
    if c.words[:2] == ("python", "-m")
    and c.words[2].startswith("vit_ssl_jax")
    and not settings.reason(c)
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where commands run: photos, and the runs that they train."""
    top = tmp_path_factory.mktemp("docs")
    material.make(top)
    return top


@pytest.fixture(scope="module")
def done(folder):
    """What all commands came to."""
    first = [material.BEFORE, material.AFTER]
    jobs = [material.job(words, folder) for words in first]
    jobs += [material.job(command.words[2:], folder) for command in RUN]
    results = forked.run(jobs, timeout=3000, cache=folder / "cache")
    for job, got in zip(jobs, results, strict=True):
        print(f"{got['seconds']:6.1f} s  {got['status']}  {' '.join(job['argv'])}")
    for got in results[: len(first)]:
        assert not got["status"], got["said"]
    return dict(zip(RUN, results[len(first) :], strict=True))


@pytest.mark.parametrize("command", RUN, ids=lambda c: f"{c.page}:{c.line}")
def test_a_command_runs(done, command):
    got = done[command]
    expected = settings.ENDS.get(command.text.split()[2], "")
    if expected:
        assert got["status"] and expected in got["said"], got["said"]
    else:
        assert not got["status"], f"{command.text}\n{got['said']}"


@pytest.mark.parametrize(
    "page", sorted({b.page for b in pages.blocks("python")}), ids=str
)
def test_python_runs(done, folder, page, monkeypatch):
    """All blocks of a page, one after the other, with what is left over from before."""
    if page.startswith("docs/reference/"):
        pytest.skip("signatures, no programs")
    monkeypatch.chdir(folder)
    space = {}
    for block in pages.blocks("python"):
        if block.page == page:
            code = "\n" * block.line + "\n".join(settings.fill([block.body]))
            exec(compile(code, page, "exec"), space)  # noqa: S102
