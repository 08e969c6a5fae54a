"""Pictures while a run trains, from the outside: files, TensorBoard, the report."""

import io
import signal
import struct
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from tests import runs
from vit_ssl_jax import album, train
from vit_ssl_jax.report import reading
from vit_ssl_jax.workdir.metrics import Writer

EVERY = 20 / 64  # epochs of 64 steps


def changes(**more):
    """Values of a run that draws every 20 steps."""
    return dict(pictures__every_epochs=EVERY, pictures__count=3) | more


def images(workdir):
    """What TensorBoard is told: `[(step, tag, pixels)]`, in order of the files."""
    found = []
    for file in sorted(workdir.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while len(content) >= 12:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                if value.HasField("image"):
                    opened = Image.open(io.BytesIO(value.image.encoded_image_string))
                    found.append((event.step, value.tag, np.asarray(opened)))
    return found


def drawn(workdir):
    """The files: `{step: bytes}`."""
    files = (workdir / "pictures").glob("*/mae.png")
    return {int(file.parent.name): file.read_bytes() for file in files}


def wait_for(process, file):
    """Waits until a file is there."""
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        if file.exists():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


@pytest.mark.slow
def test_a_killed_run_that_goes_on_draws_the_same_again(tmp_path):
    """From step 30 or from the start, over what was drawn until it was killed."""
    wanted = changes(steps=90, checkpoint_every=30)
    killed = runs.command(tmp_path / "run", **wanted)
    wait_for(killed, tmp_path / "run" / "pictures" / "40" / "mae.png")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = drawn(tmp_path / "run")
    assert set(before) >= {0, 20, 40}
    other = tmp_path / "run" / "pictures" / "85"  # of a course not taken
    other.mkdir()
    (other / "mae.png").write_bytes(b"another run's")
    last = runs.command(tmp_path / "run", **wanted)
    out, _ = last.communicate()
    assert last.returncode == 0, out
    assert f"by step: {tmp_path}/run/pictures/90/mae.png" in out

    files = drawn(tmp_path / "run")
    assert sorted(files) == [0, 20, 40, 60, 80, 90]
    assert {step: files[step] for step in before} == before
    sheets = {k: np.asarray(Image.open(io.BytesIO(v))) for k, v in files.items()}
    assert (sheets[0][:110] == sheets[90][:110]).all()  # the same images
    assert (sheets[0] != sheets[90]).any()  # and other predictions
    found = images(tmp_path / "run")
    assert {step for step, *_ in found} == set(files)
    for step, tag, pixels in found:
        assert tag == "pictures/mae"
        np.testing.assert_array_equal(pixels, sheets[step])

    _, found = reading.collect([tmp_path / "run"])
    (panel,) = found["runs"].values()
    assert list(panel) == ["mae"]  # one slider, with all of them
    assert [picture["step"] for picture in panel["mae"]] == sorted(files)


@pytest.mark.slow
def test_pictures_that_cannot_be_written_or_made_never_end_a_run(
    tmp_path, capsys, monkeypatch
):
    """There is a file in the place of their folder, and after two no memory."""
    (tmp_path / "pictures").write_text("in the way")
    made, calls = album.Album._sheet, []

    def sheet(self, state):
        calls.append(int(state.step))
        if len(calls) > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: no memory")
        return made(self, state)

    monkeypatch.setattr(album.Album, "_sheet", sheet)
    train.train(runs.small(steps=61, checkpoint_every=61, **changes()), tmp_path)
    said = capsys.readouterr().out
    for step in (0, 20):
        assert f"the pictures of step {step} aren't written" in said
    assert said.count("no more pictures: RESOURCE_EXHAUSTED: no memory") == 1
    assert calls == [0, 20, 40]
    assert runs.metrics(tmp_path)[-1]["step"] == 61


def test_without_their_split_they_are_off(tmp_path, capsys):
    config = runs.small(steps=1, **changes(pictures__split="validation"))
    train.train(config, tmp_path)
    said = capsys.readouterr().out
    assert "pictures are off: fake has no split 'validation'" in said
    assert not (tmp_path / "pictures").exists()


def test_an_image_goes_to_tensorboard_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    log = Writer(tmp_path, start=0, steps=9)
    log.write_image(4, "pictures/x", pixels)
    log.close()
    ((step, tag, found),) = images(tmp_path)
    assert (step, tag) == (4, "pictures/x")
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.slow  # ~ 20 s
def test_images_on_the_devices_and_spans_of_steps_draw_the_same(tmp_path):
    for name, cached in (("host", False), ("devices", True)):
        config = runs.small(
            steps=30, log_every=30, **changes(data__device_cache=cached)
        )
        train.train(config, tmp_path / name)
    files = {name: drawn(tmp_path / name) for name in ("host", "devices")}
    assert [sorted(found) for found in files.values()] == 2 * [[0, 20, 30]]
    assert files["host"][0] == files["devices"][0]
