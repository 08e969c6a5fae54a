"""Images that go away, or never come, while a run reads them: nothing of it is lost."""

import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests import runs


@pytest.fixture
def photos(tmp_path):
    """A folder of 3,000 tiny images: more than a run of 100 steps of 16 reads."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3000):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def read_until(process, text):
    """The lines that a process prints until one has `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            break
    return "".join(lines)


def start(workdir, photos, **changes):
    changes = dict(steps=100, data__name="folder", data__dir=photos) | changes
    return runs.command(workdir, **changes)


@pytest.mark.slow
def test_a_mount_that_comes_back_costs_no_step(tmp_path, photos):
    straight, lost = start(tmp_path / "straight", photos), tmp_path / "lost"
    assert straight.communicate()[0] and straight.returncode == 0
    process, away = start(lost, photos), tmp_path / "away"
    read_until(process, "step 30/")
    photos.rename(away)
    said = read_until(process, "waiting up to 300 s for it to come back")
    assert f"folder {photos} can't be read ([Errno 2] No such file" in said
    away.rename(photos)
    rest, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "can be read again" in rest
    assert "broken" not in rest
    wanted, got = runs.weights(tmp_path / "straight"), runs.weights(lost)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.slow
def test_a_mount_that_stays_away_ends_the_run_saved(tmp_path, photos):
    lost, away = tmp_path / "lost", tmp_path / "away"
    process = start(lost, photos, data__retry_seconds=3, checkpoint_every=1000)
    read_until(process, "step 30/")
    photos.rename(away)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert "can't be read any more" in line
    assert "for 3 s (config.data.retry_seconds)" in line
    (saved,) = (lost / "checkpoints").iterdir()
    assert int(saved.name) >= 30
    away.rename(photos)
    again = start(lost, photos)
    again.communicate(timeout=240)
    assert [row["step"] for row in runs.metrics(lost)] == list(range(1, 101))


@pytest.mark.slow
def test_a_read_that_never_ends_does_not_keep_a_signal_from_saving(tmp_path, photos):
    process = start(tmp_path / "run", photos, checkpoint_every=1000)
    read_until(process, "step 30/")
    for file in list(photos.iterdir()):
        file.unlink()
        os.mkfifo(file)  # whose reader waits for a writer, as for a server that is away
    while process.poll() is None and is_busy(process, tmp_path / "run"):
        pass  # what was read ahead is used up first
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert "the next images aren't there 10 s after the signal" in out
    assert "saved; the same command continues" in out
    assert process.returncode == 0
    last = max(row["step"] for row in runs.metrics(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / str(last)).is_dir()


def is_busy(process, workdir):
    """Whether a run takes a step within three seconds."""
    before = len(runs.metrics(workdir))
    time.sleep(3)
    return len(runs.metrics(workdir)) != before
