"""Names of slices, figures of chips, and a libtpu that isn't as it should be."""

import importlib.metadata

import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import topologies


@pytest.mark.parametrize(
    ("name", "slices", "chip", "layout"),
    [
        ("v5e:4x8", 1, "v5e", "4x8"),
        ("2*v5e:4x4", 2, "v5e", "4x4"),
        ("v4:2x2x4", 1, "v4", "2x2x4"),
        ("tpu7x:2x2x1", 1, "tpu7x", "2x2x1"),
    ],
)
def test_a_name_is_slices_chip_and_layout(name, slices, chip, layout):
    found = topologies.parse(name)
    assert found == (slices, topologies.CHIPS[chip], layout)


@pytest.mark.parametrize(
    "name",
    ["v5litepod-8", "v9:2x2", "v5e", "v5e:4x4x4", "v4:4x4", "v5e:0x4", "0*v5e:2x2"],
)
def test_a_wrong_name_lists_the_right_ones(name):
    with pytest.raises(UserError, match="--topology.*v5e:4x8.*2\\*v5e:4x4"):
        topologies.get_devices(name)


def test_published_peaks_and_bandwidths():
    """TFLOP/s of the vendor's pages; of tpu7x half a chip, as jax sees it."""
    published = dict(v4=275, v5e=197, v5p=459, v6e=918, tpu7x=2307 / 2)
    for name, peak in published.items():
        assert topologies.CHIPS[name].peak_flops / 1e12 == pytest.approx(peak, rel=2e-3)
    assert topologies.CHIPS["v5e"].hbm_bytes_per_cycle == pytest.approx(546)


def test_chips_are_found_by_what_jax_calls_them():
    assert topologies.chip_of("TPU v5 lite").name == "v5e"
    assert topologies.chip_of("TPU v5").name == "v5p"
    assert topologies.chip_of("cpu") is None


def test_devices_at_hand_have_no_chip_here():
    devices, chip = topologies.get_devices("devices")
    assert chip is None and len(devices) == 8


def test_several_slices_lie_along_data():
    pytest.importorskip("libtpu")
    devices, _ = topologies.get_devices("2*v5e:2x2", say=str)
    mesh = partition.make_mesh(dict(data=-1, fsdp=1, tensor=2), devices)
    slices = [[d.slice_index for d in row.flat] for row in mesh.devices]
    assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(UserError, match="config.mesh.fsdp: 2 over 2 slices"):
        partition.make_mesh(dict(data=-1, fsdp=2, tensor=1), devices)
    with pytest.raises(UserError, match="config.mesh.data: 1 .* over 2 slices"):
        partition.make_mesh(dict(data=1, fsdp=-1, tensor=1), devices)


@pytest.mark.parametrize("name", ["v6e:4x4", "v4:2x2x4", "v5p:2x2x4"])
def test_a_mesh_may_split_an_axis_of_the_torus(name):
    pytest.importorskip("libtpu")
    devices, _ = topologies.get_devices(name, say=str)
    mesh = partition.make_mesh(dict(data=2, fsdp=2, tensor=4), devices)
    assert {d.id for d in mesh.devices.flat} == {d.id for d in devices}
    assert mesh.devices.shape == (2, 2, 4) and len(devices) == 16


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        topologies.get_devices("v5e:2x2")


def test_another_libtpu_is_warned_of(monkeypatch):
    said = []
    wanted = topologies.wanted_libtpu()
    assert wanted.startswith("0.")
    right = wanted.replace("*", "7")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: right)
    topologies.check_libtpu(said.append)
    assert said == []
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    topologies.check_libtpu(said.append)
    assert "libtpu 0.0.1" in said[0] and wanted in said[0]
