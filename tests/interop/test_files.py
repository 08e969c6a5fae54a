"""Files of weights by their bytes: torch's own reading, and what is damaged or refused."""

import argparse
import collections
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import files, torch_file


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_of_any_kind_are_those_that_torch_reads(torch, tmp_path):
    """Views of one storage, transposed, with an offset, empty, of every type."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tree = collections.OrderedDict(
        base=base,
        turned=base.T,
        part=base[1:3, ::2],
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
        nested={"half": base.half(), "brain": base.bfloat16(), "double": base.double()},
        whole=[torch.tensor([1, 2]), torch.tensor([True, False])],
        number=7,
        text="name",
    )
    torch.save(tree, tmp_path / "x.pt")
    ours = torch_file.read(tmp_path / "x.pt")
    theirs = torch.load(tmp_path / "x.pt", weights_only=True)
    assert list(ours) == list(theirs)
    for name in ("base", "turned", "part", "scalar", "empty", "parameter"):
        expected = theirs[name].detach().numpy()
        np.testing.assert_array_equal(ours[name], expected)
        assert ours[name].dtype == expected.dtype
    nested = files.widen(ours["nested"])
    assert nested["double"].dtype == np.float64
    for name in ("half", "brain"):
        assert nested[name].dtype == np.float32
        np.testing.assert_array_equal(nested[name], base.numpy())
    np.testing.assert_array_equal(ours["whole"][0], [1, 2])
    np.testing.assert_array_equal(ours["whole"][1], [True, False])
    assert (ours["number"], ours["text"]) == (7, "name")


def test_what_a_training_loop_saves_beside_them_is_passed_over(torch, tmp_path):
    args = argparse.Namespace(lr=1e-3, sizes=[1, 2], inner=argparse.Namespace(a=1))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=1e-3)
    tree = {"model": {"x": torch.ones(2)}, "args": args, "epoch": np.int64(3)}
    tree |= {"optimizer": optimizer.state_dict(), "device": torch.device("cpu")}
    tree |= {"size": torch.Size([2]), "dtype": torch.float32, "names": {"a", "b"}}
    torch.save(tree, tmp_path / "x.pth")
    ours = files.read(tmp_path / "x.pth").tree
    np.testing.assert_array_equal(ours["model"]["x"], [1, 1])
    assert isinstance(ours["args"], torch_file.Nothing)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def zipped(tree, path):
    """An archive as torch.save makes it, of a pickle without tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(tree, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("name", ["system", "getattr", "import"])
def test_a_pickle_that_wants_to_run_something_is_refused(name, tmp_path):
    victim = tmp_path / "victim"
    raw = {
        "system": pickle.dumps({"model": Evil(victim)}, protocol=2),
        "getattr": b"c__builtin__\ngetattr\n(c__builtin__\nint\nVreal\ntR.",
        "import": b"cimportlib\nimport_module\n(Vos\ntR.",
    }[name]
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    with pytest.raises(UserError, match=r"evil\.pth: it wants to run .*refused"):
        files.read(path)
    assert not victim.exists()


def test_numpy_and_torch_objects_are_never_called(tmp_path):
    """`numpy.load` and the like, which would unpickle again, are `Nothing`."""
    for name in ("numpy load", "torch load", "numpy.lib.npyio load"):
        module, function = name.split()
        raw = f"c{module}\n{function}\n(Vx\ntR.".encode()
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
            archive.writestr("archive/data.pkl", raw)
        assert isinstance(torch_file.read(tmp_path / "x.pth"), torch_file.Nothing)


def test_a_tensor_beyond_its_storage_is_refused(torch, tmp_path):
    storage = np.zeros(4, np.float32)
    for offset, size, stride in ((0, (5,), (1,)), (3, (2,), (1,)), (-1, (2,), (1,))):
        with pytest.raises(UserError, match="reaches beyond its storage"):
            torch_file.rebuild(storage, offset, size, stride)
    with pytest.raises(UserError, match="reaches beyond its storage"):
        torch_file.rebuild(storage, 3, (2,), (-1,))


def whole_files(tmp_path, torch):
    """One whole file of every kind."""
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(64, 64)).astype(np.float32), "b": np.ones(3)}
    save_file(arrays, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **arrays)
    torch.save({k: torch.from_numpy(x) for k, x in arrays.items()}, tmp_path / "x.pth")
    return arrays, [tmp_path / f"x.{kind}" for kind in ("safetensors", "npz", "pth")]


def test_every_kind_is_read_and_half_of_it_is_told(torch, tmp_path):
    arrays, paths = whole_files(tmp_path, torch)
    for path in paths:
        tree = files.read(path).tree
        assert sorted(tree) == sorted(arrays)
        np.testing.assert_array_equal(tree["a"], arrays["a"])
        whole = path.read_bytes()
        for part in (len(whole) // 2, len(whole) - 40):
            path.write_bytes(whole[:part])
            with pytest.raises(UserError, match="damaged.*download it again"):
                files.read(path)


def test_numbers_of_16_bits_come_as_float32(tmp_path):
    values = np.float32([1.5, -2.0])
    save_file({"x": values.astype(ml_dtypes.bfloat16)}, tmp_path / "x.safetensors")
    found = files.read(tmp_path / "x.safetensors").tree["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (
            b"<!DOCTYPE html><html><head>Not found",
            "it is a text file .*failed download",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "it is a pointer of Git LFS",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "it is no file of weights"),
        (b"PK\x03\x04" + bytes(60), "it is damaged or only a part"),
    ],
)
def test_what_is_no_file_of_weights_is_named(content, said, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pth: {said}"):
        files.read(tmp_path / "x.pth")


def test_a_zip_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("photo.jpg", b"123")
    with pytest.raises(UserError, match="none that torch.save wrote"):
        files.read(tmp_path / "x.pth")


def test_an_npz_with_a_pickle_inside_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        files.read(tmp_path / "x.npz")


def test_files_of_old_torch_need_torch_and_stay_safe(torch, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"x": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(files.read(path).tree["x"], [1, 1])
    buffer = io.BytesIO()
    pickle.dump({"x": Evil(tmp_path / "victim")}, buffer, protocol=2)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="torch can't read it safely"):
        files.read(path)
    assert not (tmp_path / "victim").exists()
