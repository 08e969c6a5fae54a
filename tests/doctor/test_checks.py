"""Faults planted in devices, packages, storage and data: each has its line."""

import importlib.metadata
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import doctor
from vit_ssl_jax.distributed import clusters
from vit_ssl_jax.doctor import collective, feed, findings, machine, storage
from vit_ssl_jax.workdir import checkpoint


def diagnose(config=None, workdir="", names=()):
    """The findings of some checks by name."""
    found = doctor.check_storage(workdir) if "workdir" in names else []
    if "data" in names:
        found += findings.examine("data", "look", feed.check, config, None, 0.2)
    return {finding["name"]: finding for finding in found}


def test_devices_add_up(monkeypatch):
    found = collective.check(jax.devices())
    assert found["ok"] and found["devices"] == 8 and found["bytes_per_second"] > 0
    assert "1 MiB of each of 8 devices summed in " in found["text"]
    assert collective.check(jax.devices()[:1])["left_out"]


def test_a_wrong_sum_is_found(monkeypatch):
    """Device 3 gets a sum without its own part."""
    right = collective.add_up

    def wrong(x):
        return right(x) - x * (jax.lax.axis_index("all") == 3)

    monkeypatch.setattr(collective, "add_up", wrong)
    found = collective.check(jax.devices())
    assert not found["ok"] and found["cure"]
    assert f"1 have a wrong sum ({jax.devices()[3]})" in found["text"]


def test_versions_are_told():
    found = machine.check_software()
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint"):
        assert f"{name} {importlib.metadata.version(name)}" in found["text"]


@pytest.mark.parametrize(("version", "ok"), [("0.4.30", False), (None, True)])
def test_a_plugin_of_another_jax_is_found(monkeypatch, tmp_path, version, ok):
    version = version or jax.__version__
    folder = tmp_path / f"jax_cuda12_plugin-{version}.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: jax-cuda12-plugin\nVersion: {version}\n"
    (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = machine.check_software()
    assert f"jax-cuda12-plugin {version}" in found["text"] and found["ok"] == ok
    if not ok:
        assert found["text"].startswith(f"jax-cuda12-plugin {version}: not of jax ")
        assert found["cure"] == f"pip install -U 'jax[cuda12]=={jax.__version__}'"


def test_what_is_in_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(clusters, "has_chips", lambda: False)
    assert machine.find_accelerators(tmp_path) is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    assert machine.find_accelerators(tmp_path)[1] == "cuda"
    assert "NVIDIA L4" in machine.find_accelerators(tmp_path)[0]
    program.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert machine.find_accelerators(tmp_path) is None
    monkeypatch.setattr(clusters, "has_chips", lambda: True)
    assert machine.find_accelerators(tmp_path) == ("TPU", "tpu")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    found = machine.find_accelerators(tmp_path)
    assert found == ("NVIDIA card (/dev/nvidia0)", "cuda")


def test_the_driver_is_read(tmp_path):
    file = tmp_path / "version"
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23"
    file.write_text(f"{line}\nGCC version:  12.2.0\n")
    assert machine.find_driver(file) == "NVIDIA driver 550.54.15"


@pytest.mark.parametrize(("extra", "what"), [("tpu", "TPU"), ("cuda", "NVIDIA card")])
@pytest.mark.parametrize("platforms", ["cpu", None])
def test_an_accelerator_that_jax_doesnt_see(monkeypatch, extra, what, platforms):
    """It isn't ok, unless its user says so."""
    monkeypatch.setattr(machine, "find_accelerators", lambda: (what, extra))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", platforms)
    try:
        found = machine.check_devices()
    finally:
        jax.config.update("jax_platforms", before)
    assert f"the {what} of this machine isn't used" in found["text"]
    assert found["ok"] == (platforms == "cpu")
    if not found["ok"]:
        assert f"pip install -e '.[{extra}]'" in found["cure"]


def test_the_workdir_is_left_as_it_was(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    for name, left in (("new", None), ("old", ["config.json"])):
        found = diagnose(workdir=str(tmp_path / name), names=["workdir"])
        assert found["workdir"]["ok"] and found["checkpoint"]["ok"]
        assert "8 MiB written, fsynced and read back" in found["workdir"]["text"]
        assert "bit-equal" in found["checkpoint"]["text"]
        folder = tmp_path / name
        assert folder.exists() == (left is not None)
        assert not left or [path.name for path in folder.iterdir()] == left
    skipped = diagnose(names=["workdir"])
    assert skipped["workdir"]["text"] == "left out: give --workdir=DIR"


def test_a_workdir_that_cant_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    found = diagnose(workdir=str(tmp_path / "file"), names=["workdir"])
    assert list(found) == ["workdir"] and not found["workdir"]["ok"]
    assert f"--workdir={tmp_path}/file can't be written" in found["workdir"]["text"]


def test_a_file_that_comes_back_changed(tmp_path, monkeypatch):
    write = storage.write

    def damage(file, data):
        write(file, data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(storage, "write", damage)
    found = diagnose(workdir=str(tmp_path), names=["workdir"])
    assert not found["workdir"]["ok"] and found["workdir"]["cure"] == storage.CURE
    assert "other bytes" in found["workdir"]["text"]
    assert found["checkpoint"]["text"] == "left out: first the workdir"
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_comes_back_changed(tmp_path, monkeypatch):
    """A byte of its largest file is another one when it is read."""
    restore = checkpoint.Checkpoints.restore

    def damaged(self, *likes):
        files = [path for path in pathlib.Path(self._root).rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 0xFF
        largest.write_bytes(data)
        return restore(self, *likes)

    monkeypatch.setattr(checkpoint.Checkpoints, "restore", damaged)
    found = diagnose(workdir=str(tmp_path), names=["workdir"])
    assert found["workdir"]["ok"] and not found["checkpoint"]["ok"]
    assert "can be read" in found["checkpoint"]["text"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    """Forty small images without labels."""
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def read(folder, **changes):
    """The finding on the images of a folder."""
    names = dict(data__name="folder", data__dir=str(folder), summary=False)
    config = runs.small("mae", **names, **changes)
    before = config.to_json()
    found = diagnose(config, names=["data"])["data"]
    assert config.to_json() == before
    return found


def test_data_is_read(folder):
    found = read(folder)
    assert found["ok"] and found["images"] == 40
    assert found["images_per_second"] > 0


def test_broken_images_are_found(folder):
    (folder / "7.png").write_bytes(b"no image")
    found = read(folder)
    assert not found["ok"] and found["cure"] == feed.BROKEN
    assert f"1 of the images read are broken, {folder}/7.png" in found["text"]
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    assert "all 40 images" in read(folder)["text"]


def test_data_that_isnt_there(tmp_path):
    found = read(tmp_path / "nothing")
    assert not found["ok"] and "nothing" in found["text"]
    assert "--config.data.dir" in found["cure"]


def test_data_that_is_too_slow(monkeypatch):
    """Beside a machine whose steps eat more than anyone can read."""
    config = runs.small("mae")
    assert feed.check(config, 1e20, 0.1)["ok"]  # a CPU's cores do both
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for speed, ok in ((1e20, False), (1.0, True)):
        found = feed.check(config, speed, 0.2)
        assert found["ok"] == ok and bool(found["cure"]) == (not ok)
        assert "that steps eat (by the speed of the blocks above)" in found["text"]
    eaten = feed.find_need(config, 2e12)
    assert eaten == pytest.approx(2 * feed.find_need(config, 1e12))


def test_a_check_that_raises_is_a_line():
    def check():
        raise RuntimeError("the chip is gone\nand more")

    (found,) = findings.examine("devices", "end what uses them", check)
    assert not found["ok"] and found["text"] == "RuntimeError: the chip is gone"
    line, cure = findings.describe(found).splitlines()
    assert line.startswith("FAILED devices") and cure.endswith("-> end what uses them")


def test_a_users_own_folder_is_left_alone(tmp_path):
    """Whatever it is called; and folders that weren't there are gone again."""
    for name in ("doctor", ".doctor-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes").write_text("mine")
    found = doctor.check_storage(str(tmp_path))
    assert all(finding["ok"] for finding in found)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".doctor-00000000", "doctor"]
    assert (tmp_path / "doctor" / "notes").read_text() == "mine"
    assert all(f["ok"] for f in doctor.check_storage(str(tmp_path / "a" / "b" / "c")))
    assert not (tmp_path / "a").exists()
