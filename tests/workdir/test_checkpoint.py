"""Checkpoints: whole or not at all, onto any mesh, never the wrong numbers."""

import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import console, partition, starting
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.step import TrainState
from vit_ssl_jax.workdir import checkpoint
from vit_ssl_jax.workdir.checkpoint import Checkpoints


def make_state(step, width=64):
    """A state with numbers of its step."""
    kernel = jax.random.normal(jax.random.key(step), (3, width, 32))
    params = {
        "mlp": {"up": {"kernel": kernel, "bias": jnp.full(32, step, jnp.float32)}}
    }
    return TrainState(jnp.asarray(step, jnp.int32), params, params, {})


def shapes(state, mesh_shape=(8, 1, 1)):
    """What a run gives to restore onto."""
    mesh = partition.make_mesh(dict(zip(partition.MESH_AXES, mesh_shape, strict=True)))
    layout = partition.shardings(state, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, layout
    )


def equal(a, b):
    """Whether two states hold the same bits."""
    return all(
        jax.tree.leaves(
            jax.tree.map(lambda x, y: np.array_equal(np.array(x), np.array(y)), a, b)
        )
    )


def restore(folder, like):
    """What a new process restores."""
    checkpoints = Checkpoints(folder, keep=3)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


def test_a_poisoned_checkpoint_is_set_aside(tmp_path):
    """One that was saved before such states were refused; probes may diverge."""
    bad = make_state(3)
    bad.params["mlp"]["up"]["bias"] = jnp.full(32, jnp.inf)
    probed = make_state(2).replace(probe={"head": jnp.full(3, jnp.nan)})
    assert checkpoint.is_finite(probed) and not checkpoint.is_finite(bad)
    checkpoints = Checkpoints(tmp_path, keep=3)
    for state in (make_state(1), bad):
        checkpoints.save(state, 10.0)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=3)
    state, _ = checkpoints.restore(shapes(bad), whole=checkpoint.is_finite)
    checkpoints.close()
    assert equal(state, make_state(1))
    assert (tmp_path / "damaged-3").is_dir()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder, keep=3)
    checkpoints.save(make_state(1), 10.0)
    checkpoints.save(make_state(2), 20.0)
    checkpoints.close()
    return folder


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_the_newest_is_restored_onto_any_mesh(saved, mesh):
    like = shapes(make_state(0), mesh)
    state, seconds = restore(saved, like)
    assert equal(state, make_state(2))
    assert seconds == 20.0
    kernel = state.params["mlp"]["up"]["kernel"]
    assert kernel.sharding == like.params["mlp"]["up"]["kernel"].sharding


def test_an_empty_folder_restores_nothing(tmp_path):
    assert restore(tmp_path, shapes(make_state(0))) is None


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(make_state(step), 0.0)
    checkpoints.close()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}


def test_another_model_is_listed_not_restored(saved):
    other = make_state(0, width=16)
    other.params["head"] = {"bias": jnp.zeros(3)}
    del other.params["mlp"]["up"]["bias"]
    with pytest.raises(UserError) as error:
        restore(saved, shapes(other))
    said = str(error.value)
    assert "  - params/head/bias (3,)" in said
    assert "  + params/mlp/up/bias (32,)" in said
    assert "~ params/mlp/up/kernel (3, 64, 32), the config makes (3, 16, 32)" in said


def damages(folder):
    """Every file of the newest checkpoint, with each way to damage it."""
    files = sorted(p for p in (folder / "checkpoints" / "2").rglob("*") if p.is_file())
    for file in files:
        content = file.read_bytes()
        yield file, None
        yield file, content[: len(content) // 2]
        yield file, b""
        for place in (len(content) // 3, 2 * len(content) // 3):
            flipped = bytearray(content)
            flipped[place : place + 8] = b"\x00" * len(flipped[place : place + 8])
            yield file, bytes(flipped)


def test_a_damaged_checkpoint_never_gives_wrong_numbers(saved, tmp_path):
    """Whatever file is lost, cut or zeroed in places: the newest state, or the one before, or a refusal."""
    outcomes = []
    for i, (file, content) in enumerate(damages(saved)):
        copy = tmp_path / str(i)
        shutil.copytree(saved, copy)
        target = copy / pathlib.Path(file).relative_to(saved)
        target.unlink() if content is None else target.write_bytes(content)
        checkpoints = Checkpoints(copy, keep=3)
        state, _ = checkpoints.restore(shapes(make_state(0)))
        step = int(state.step)
        assert equal(state, make_state(step)), f"{target}: wrong numbers"
        outcomes.append(step)
        checkpoints.save(make_state(2), 0.0)  # the run comes by again
        checkpoints.close()
        again, _ = restore(copy, shapes(make_state(0)))
        assert equal(again, make_state(2)), f"{target}: not saved again"
    assert set(outcomes) == {1, 2}


def test_want_of_memory_is_no_damage(tmp_path, monkeypatch):
    """The checkpoint that couldn't be held stays where it is, and so does the older."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(make_state(step), 1.0)
    checkpoints.close()

    def read(folder, like):
        raise MemoryError(f"{folder} is too much")

    monkeypatch.setattr(checkpoint, "read", read)
    with pytest.raises(MemoryError, match="2 is too much"):
        restore(tmp_path, shapes(make_state(0)))
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert steps == ["1", "2"] and not list(tmp_path.glob("damaged-*"))


def test_a_folder_that_is_a_file_is_refused_at_the_start(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="can't be written to .*checkpoints"):
        Checkpoints(tmp_path, keep=3)


def test_a_folder_that_is_gone_is_noticed_by_the_next_save(tmp_path):
    """At once, and not by Orbax's threads, which wait for minutes."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(make_state(1), 0.0)
    checkpoints._manager.wait_until_finished()
    checkpoints.check()
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="space and the right to write"):
        checkpoints.save(make_state(2), 0.0)
    checkpoints.close()


def test_checkpoints_of_every_so_many_steps_stay_for_good(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, every=4)
    for step in range(1, 12):
        checkpoints.save(make_state(step), 0.0)
    checkpoints.close()
    left = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert left == [4, 8, 10, 11]
    again, _ = restore(tmp_path, shapes(make_state(0)))
    assert equal(again, make_state(11))


def test_the_first_save_is_timed_and_told_once(tmp_path):
    checkpoints, told = Checkpoints(tmp_path, keep=2), []
    assert checkpoints.check() is None
    for step in (1, 2):
        checkpoints.save(make_state(step), 0.0)
        written = tmp_path / "checkpoints" / str(step)
        end = time.monotonic() + 30
        while time.monotonic() < end and not (told[step - 1 :] and written.exists()):
            took = checkpoints.check()
            if took or (step == 2 and written.exists()):
                told.append(took)
            time.sleep(0.01)
    checkpoints.close()
    assert 0 < told[0] < 30 and told[1:] == [None]


def test_every_so_many_steps_must_be_saved_ones():
    config = runs.small(checkpoint_every=20, keep_every=50)
    with pytest.raises(UserError, match="keep_every: 50 is no multiple.*set it to 40"):
        starting.check_every(config)


def test_a_save_that_takes_longer_than_the_notice_is_warned_of():
    assert (
        console.save_line(4.1, 0.5)
        == "a save takes 4.1 s beside the steps, of 0.5 s each"
    )
    assert "taken away after 30 s" in console.save_line(20.0, 11.0)
