"""Worker processes: the same batches, nothing left behind, no hang."""

import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from tests import runs
from tests.data.test_pipeline import assert_equal, numbered
from vit_ssl_jax.data import pool, workers
from vit_ssl_jax.data.pipeline import eval_batches, train_batches
from vit_ssl_jax.errors import UserError

CENTRE = dict(size=(8, 12), resize=12, interpolation="bilinear")
CROP = dict(crop=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=True)
SHARED = pathlib.Path("/dev/shm")


def source(length, broken=()):
    """Numbered images that workers may read."""
    return dataclasses.replace(numbered(length, broken), portable=True)


def train(images, steps, **how):
    """The first batches; the workers are gone afterwards."""
    batches = train_batches(
        images, batch_size=16, seed=3, start_step=5, **CENTRE, **CROP, **how
    )
    found = list(itertools.islice(batches, steps))
    batches.close()
    return found


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Neither processes nor shared memory; what other tests have there goes with them."""
    before = set(SHARED.glob("psm_*"))
    yield
    assert not multiprocessing.active_children()
    assert_gone(before)


def assert_gone(before, seconds=90):
    """That no block of shared memory stays which wasn't there before."""
    until = time.monotonic() + seconds
    while (left := set(SHARED.glob("psm_*")) - before) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


@pytest.mark.parametrize(("processes", "threads"), [(1, 3), (3, 1)])
def test_batches_are_those_of_threads(processes, threads):
    """More are kept than there are slots ahead; images 3 and 4 can't be read."""
    images = source(50, broken={3, 4})
    found = train(images, 9, processes=processes, threads=threads)
    expected = source(50, broken={3, 4})
    assert_equal(found, train(expected, 9, processes=0))
    assert images.broken == expected.broken == {3, 4}


@pytest.mark.parametrize("shard", [(0, 2), (1, 2)])
def test_a_process_of_several_gets_its_part(shard):
    found = train(source(50), 4, processes=1, shard=shard)
    whole = train(source(50), 4, processes=0)
    rows = slice(8 * shard[0], 8 * shard[0] + 8)
    assert_equal(found, [{k: v[rows] for k, v in batch.items()} for batch in whole])


def test_a_set_is_evaluated_once_in_order():
    """21 images in batches of 8, of which two can't be read."""
    found, expected = (
        list(eval_batches(source(21, {2, 20}), batch_size=8, processes=count, **CENTRE))
        for count in (2, 0)
    )
    assert_equal(found, expected)
    assert sum(batch["valid"].sum() for batch in found) == 19


def test_what_a_worker_raises_is_raised():
    with pytest.raises(UserError, match="all 5 images of numbers are broken"):
        train(source(5, broken=range(5)), 1, processes=1)


def test_a_worker_that_dies_ends_the_run_with_its_reason():
    batches = train_batches(
        source(50), batch_size=16, seed=0, processes=2, **CENTRE, **CROP
    )
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a worker .* died \(exit code -9"):
        list(itertools.islice(batches, 50))


def test_images_in_memory_are_left_to_threads():
    with pytest.raises(UserError, match="memory, .* --config.data.workers=0"):
        train(numbered(50), 1, processes=2)


def test_a_slot_is_used_again_once_no_view_is_left():
    """One batch after the other takes as many slots as are ahead, and one."""
    names = set()

    def write(first, out):
        out["x"][:] = first

    layout = pool.Layout({"x": ((4,), "int64")})
    numbers = ([(n, 0, 4)] for n in range(30))
    made = pool.batches(write, layout, numbers, processes=1, threads=1, ahead=1)
    for n, batch in enumerate(made):
        np.testing.assert_array_equal(batch["x"], n)
        mine = pathlib.Path("/proc/self/maps")  # of Linux; others' blocks aren't ours
        names |= set(re.findall(r"psm_\w+", mine.read_text() if mine.exists() else ""))
        del batch
    assert n == 29 and len(names) <= 3 and (names or sys.platform != "linux")


LEFT = """
import os, signal, sys
from vit_ssl_jax.data import sources
from vit_ssl_jax.data.pipeline import train_batches

if __name__ == "__main__":
    how = dict(size=(8, 8), crop=(), ratio=(1, 1), flip=True, resize=8)
    batches = train_batches(
        sources.open_source("fake", "", "train"),
        batch_size=16, seed=0, processes=2, interpolation="bicubic", **how,
    )
    next(batches)
    print("begun", flush=True)
    how = sys.argv[1]
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "interrupt":
        os.killpg(0, signal.SIGINT)
"""


@pytest.mark.parametrize("how", runs.mostly_slow(["end", "kill", "interrupt"], "kill"))
def test_nothing_is_left_however_the_parent_ends(tmp_path, how):
    """Its workers hold their end of its output: it is read to the end when all are gone."""
    script = tmp_path / "script.py"
    script.write_text(LEFT)
    done = subprocess.run(
        check=False,
        args=[sys.executable, str(script), how],
        cwd=runs.ROOT,
        env=runs.environment(1) | {"PYTHONPATH": str(runs.ROOT)},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
    )
    assert done.stdout == "begun\n"
    if how == "end":
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("cores", "free", "script", "processes", "said"),
    [
        (4, 10**9, False, 0, ""),
        (64, 10**9, False, 64, ""),
        (64, 10**6, False, 0, "docker run --shm-size"),
        (64, 10**9, True, 0, "start it as a module"),
    ],
)
def test_who_works_follows_from_the_machine(
    monkeypatch, caplog, cores, free, script, processes, said
):
    """By its cores; what is in the way is said."""
    monkeypatch.setattr(workers, "count_cores", lambda: cores)
    usage = types.SimpleNamespace(free=free)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: usage)
    main = types.SimpleNamespace(__spec__=None if script else "a module", __file__="a")
    monkeypatch.setitem(sys.modules, "__main__", main)
    found = workers.choose(source(50), None, None, 10**6)
    assert found.processes == processes
    assert (said in caplog.text) if said else not caplog.text
    assert workers.choose(numbered(50), None, None, 10**6).processes == 0


@pytest.mark.slow  # ~ 10 s, a kernel and its workers
def test_workers_work_from_a_notebook(tmp_path):
    """Whose cells no worker could import."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cell = """
from vit_ssl_jax.data import pipeline, sources
how = dict(size=(8, 8), resize=8, crop=(), ratio=(1, 1), interpolation="bilinear")
how |= dict(batch_size=16, seed=0, flip=False)
source = sources.open_source("fake", "", "train")
ids = []
for processes in (0, 2):
    batches = pipeline.train_batches(source, processes=processes, **how)
    ids.append([next(batches)["id"].tolist() for _ in range(3)])
    batches.close()
print(ids[0] == ids[1], len(ids[1][0]))
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    place = {"metadata": {"path": str(runs.ROOT)}}
    nbclient.NotebookClient(book, timeout=120, resources=place).execute()
    (output,) = book.cells[0].outputs
    assert output.text == "True 16\n"
