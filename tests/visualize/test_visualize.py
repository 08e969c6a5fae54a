"""From a run and photos to PNGs, and every bad input as one message."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vit_ssl_jax import train, visualize
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize.__main__ import write_pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four images of other sizes, one twice, and one that is broken."""
    top = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a", "b", "c")):
        pixels = rng.integers(0, 256, (40 + i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(top / f"{name}.png")
    (top / "deep").mkdir()
    (top / "deep" / "again.png").write_bytes((top / "b.png").read_bytes())
    (top / "a_broken.png").write_text("no image")
    return top


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small MAE without a class token."""
    workdir = tmp_path_factory.mktemp("runs") / "mae"
    train.train(runs.small("mae", steps=2, vit__cls=False), workdir)
    return workdir


def test_every_kind_is_a_png_and_a_line(run, photos, tmp_path):
    said, out = [], tmp_path / "new" / "pictures"
    files = write_pictures(run, photos, out, say=said.append, patch=(1, 3))
    assert [file.stem for file in files] == list(visualize.KINDS)
    assert sorted(out.iterdir()) == sorted(files)
    for file, line in zip(files, said[-len(files) :], strict=True):
        assert line.startswith(f"{file}: ")
        pixels = np.asarray(Image.open(file))
        assert min(pixels.shape[:2]) > 100 and pixels.std() > 10
    text = "\n".join(said)
    assert "a_broken.png" in text.partition("can't be read: ")[2].splitlines()[0]
    assert "What the patches attend to on average in block 2 of 2" in text
    assert "the 3 nearest of 4 images" in text
    assert "row 1, column 3" in text and "4 images" in text


def test_twins_are_nearest_neighbours(run, photos):
    """`deep/again.png` is `b.png`."""
    from vit_ssl_jax.visualize import components, scene

    opened = scene.open_scene(run, photos, say=str)
    assert opened.names == ["a", "b", "c", "deep/again"]
    vectors = opened.encoder.encode([opened.shown.where(i) for i in range(4)])
    order, cosines = components.nearest(vectors, [1, 3], 1)
    np.testing.assert_array_equal(order, [[3], [1]])
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def test_a_picture_in_python_of_files_and_arrays(run, photos):
    said = []
    array = np.zeros((32, 32, 3), np.uint8)
    for images in (f"{photos}/c.png,{photos}/deep", [photos / "a.png", array]):
        sheet = visualize.draw(
            run, images, "similarity", say=said.append, size=(64, 32)
        )
        assert sheet.width > 100
    assert "2 images" in said[-1]


KIND = "--what: 'atention' is none of attention, .*; did you mean attention?"
BAD = [
    (dict(what="pca,atention"), KIND),
    (dict(checkpoint="/nowhere"), "there is no checkpoint under /nowhere"),
    (
        dict(images=""),
        "attention takes --images=DIR; without are --what=positions,filt",
    ),
    (dict(images="/nowhere"), "--images=/nowhere: there is no such file or folder"),
    (dict(images="{}/a.png,x.png"), "--images=x.png: there is no such file or folder"),
    (dict(images="{}/empty"), "no images in "),
    (dict(images="{}/a_broken.png"), "images of the files given are broken"),
    (
        dict(images="{}/a.png", what="neighbours"),
        "neighbours: neighbours need at least",
    ),
    (dict(patch=(4, 0)), "--patch=4,0: the grid has rows 0 to 3 and columns 0 to 3"),
    (dict(layer=3), "layer 3: this ViT has blocks 1 to 2; 0 is the last"),
    (dict(query="cls"), "'cls': this ViT has no class token; use 'mean'"),
    (dict(pool="cls"), "'cls': this ViT has no class token; use 'mean'"),
    (dict(size=(30, 32)), "the patch of 8 px doesn't divide it; give 32x32"),
    (dict(out="{}/a.png"), "a.png is a file; give a folder, which may be new"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_bad_input(run, photos, tmp_path, changes, said):
    (photos / "empty").mkdir(exist_ok=True)
    given = dict(checkpoint=run, images=photos, out=tmp_path) | changes
    given = {k: v.format(photos) if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(UserError, match=said):
        write_pictures(**given, say=str)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_none(photos, tmp_path):
    with pytest.raises(UserError, match="no checkpoint under"):
        write_pictures(photos, photos, tmp_path / "out", say=str)


def start(*flags):
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vit_ssl_jax", "visualize", *flags],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--what=pca,xyz", "error: --what: 'xyz' is none of attention, "),
        ("--patch=3", "error: --patch=3: give two whole numbers, as 7,7"),
        ("--size=ax3", "error: --size=ax3: give two whole numbers, as 7x7"),
        ("--count=0", "error: --count=0: give a whole number of at least 1"),
        ("--query=all", "error: --query: 'all' is not one of cls, mean, patch"),
    ],
)
def test_a_bad_flag_is_one_line(tmp_path, flag, said):
    done = start("--checkpoint=.", f"--images={tmp_path}", f"--out={tmp_path}", flag)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


@pytest.mark.slow
def test_the_command(run, photos, tmp_path):
    """Two kinds of two images, of another size; what is left out is a line."""
    flags = f"--checkpoint={run}", f"--images={photos}", f"--out={tmp_path}/out"
    done = start(*flags, "--what=similarity, method", "--count=2", "--size=64x32")
    assert done.returncode == 0, done.stderr
    left_out, first, second = done.stdout.splitlines()
    assert left_out == f"left out, for it can't be read: {photos}/a_broken.png"
    assert first.startswith(f"{tmp_path}/out/similarity.png: Cosine similarity of")
    assert second.startswith(f"{tmp_path}/out/method.png: ")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["method.png", "similarity.png"]
