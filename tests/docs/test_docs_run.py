"""Every command of the documentation runs, small, page by page; and so does its Python.

A page's commands run in their order in one folder, where they find the photos, runs and
weights that pages share (`settings`), and what those before them made.
"""

import itertools

import pytest

from tests import forked
from tests.docs import material, pages, settings
from vit_ssl_jax import recipes

# Each once, on the first page that has it.
RUN = [
    c
    for c in pages.distinct(pages.commands())
    if c.words[:2] == ("python", "-m")
    and c.words[2].startswith("vit_ssl_jax")
    and not settings.find(settings.LEFT_OUT, c.text)
]
PYTHON = [b for b in pages.blocks("python") if not b.page.startswith("docs/reference/")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where pages have their folders."""
    top = tmp_path_factory.mktemp("docs")
    material.make(top)
    return top


@pytest.fixture(scope="module")
def done(folder):
    """What all commands came to."""
    jobs = shared = material.shared_jobs(folder)
    for page, commands in itertools.groupby(RUN, lambda c: c.page):
        jobs = jobs + material.page_jobs(page, list(commands), folder)
    results = forked.run(jobs, timeout=5000, cache=folder / "cache")
    for job, got in zip(jobs, results, strict=True):
        print(f"{got['cpu']:6.1f} s  {got['status']}  {' '.join(job['argv'])}")
    for got in results[: len(shared)]:
        assert not got["status"], got["said"]
    return dict(zip(RUN, results[len(shared) :], strict=True))


@pytest.mark.parametrize("command", RUN, ids=lambda c: f"{c.page}:{c.line}")
def test_a_command_runs(done, command):
    got, expected = done[command], settings.find(settings.ENDS, command.text)
    assert bool(got["status"]) == bool(expected), f"{command.text}\n{got['said']}"
    assert expected in got["said"], got["said"]


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in PYTHON))
def test_python_runs(done, folder, page, monkeypatch):
    """All blocks of a page, one after the other, with what is left over from before."""
    del done
    where = folder / page.replace("/", "_")
    material.share(folder, where)
    monkeypatch.chdir(where)
    monkeypatch.setattr(recipes, "load", material.load_small)
    space = {}
    for block in PYTHON:
        if block.page == page:
            (text,) = settings.fill([block.body])
            code = compile("\n" * block.line + text, page, "exec")
            exec(code, space)  # noqa: S102
