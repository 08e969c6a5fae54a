"""Weights of other code wherever a run is taken, and out again, as a user does it."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vit_ssl_jax
from tests import runs
from vit_ssl_jax import (
    convert,
    exporting,
    finished,
    partition,
    pretrained,
    train,
    weights,
)
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import fair, table, timm


def start(*words):
    """`python -m vit_ssl_jax WORDS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vit_ssl_jax", *map(str, words)],
        cwd=runs.ROOT,
        env=runs.environment(1),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def mae_run(tmp_path_factory):
    """A run of MAE, two steps long."""
    workdir = tmp_path_factory.mktemp("mae")
    train.train(runs.small("mae", steps=2, vit__variant="2x32x2/4"), workdir)
    return workdir


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A supervised run, two steps long."""
    workdir = tmp_path_factory.mktemp("classifier")
    train.train(supervised(steps=2, vit__variant="2x32x2/8"), workdir)
    return workdir


def supervised(**changes):
    """A small supervised run's config, as of `runs.small`."""
    config = runs.small("mae", **changes)
    config.recipe = "supervised"
    method = runs.load("pretext_cpu.py", "supervised").method
    with config.unlocked():
        config.method = method.copy_and_resolve_references()
        config.vit.cls = True
    config.method.pool = "cls"
    return config


@pytest.fixture(scope="module")
def mae_file(mae_run, tmp_path_factory):
    """The same as a file in MAE's own layout, as its authors would have saved it."""
    trained = finished.read_trained(mae_run)
    mesh = partition.make_mesh(finished.MESH)
    model, state = finished.load_model(trained, mesh)
    params = jax.tree.map(np.asarray, state.params)
    arrays = table.export_params(fair.mae_rows(model.method.model), params)
    file = tmp_path_factory.mktemp("file") / "mae.safetensors"
    save_file(arrays, file)
    return file


FACTS = dict(heads=2, decoder_heads=4)


def encode(encoder, batch=2):
    """Tokens of random images in [0, 1]."""
    image = np.random.default_rng(0).random((batch, *encoder.size, 3), np.float32)
    return np.asarray(encoder.apply(encoder.params, image))


@pytest.fixture(scope="module")
def imported(mae_file, mae_run, tmp_path_factory):
    """A workdir that `convert import` made of the file; the run's own normalisation."""
    out = tmp_path_factory.mktemp("imported") / "run"
    data = finished.read_trained(mae_run).config.data
    flags = [f"--{k}={','.join(map(str, data[k]))}" for k in ("mean", "std")]
    done = start(
        *("convert", "import", mae_file, f"--out={out}", "--heads=2", *flags),
        "--decoder_heads=4",
    )
    assert done.returncode == 0, done.stderr
    assert "is mae's, ViT 2x32x2/4" in done.stdout and "written: " in done.stdout
    return out


def test_an_imported_workdir_gives_what_the_run_gives(imported, mae_run):
    config = finished.read_trained(imported).config
    config.vit.dtype = finished.read_trained(mae_run).config.vit.dtype
    (imported / "config.json").write_text(config.to_json())
    ours, theirs = (vit_ssl_jax.load(path) for path in (imported, mae_run))
    np.testing.assert_array_equal(encode(ours), encode(theirs))


def test_pre_training_goes_on_whole_from_a_file(imported, mae_run, tmp_path, capsys):
    """Encoder and decoder, at another resolution and with a schedule of its own."""
    config = runs.small(
        "mae", steps=1, vit__variant="2x32x2/4", init_from=str(imported)
    )
    config.data.size = (36, 36)
    config.optim.lr = 0.0
    config.optim.wd = config.optim.wd_end = 0.0
    train.train(config, tmp_path / "on")
    said = capsys.readouterr().out
    assert "decoder: from there, too" in said
    assert "its fixed position table is made anew for a grid of 9x9" in said
    mesh = partition.make_mesh(finished.MESH)
    states = [
        finished.load_model(finished.read_trained(path), mesh)[1].params
        for path in (tmp_path / "on", mae_run)
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def mark_as_published(workdir):
    """Makes of a run what `convert import` makes of its authors' file."""
    config = json.loads((workdir / "config.json").read_text())
    config["recipe"] = f"weights:{config['method']['name']}"
    (workdir / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_the_teacher_and_predictor_come_along(tmp_path, capsys):
    """I-JEPA's student starts as the student was, not as the teacher."""
    first = runs.small("ijepa", steps=3, vit__variant="2x32x2/4")
    train.train(first, tmp_path / "first")
    mark_as_published(tmp_path / "first")
    again = runs.small(
        "ijepa", steps=1, vit__variant="2x32x2/4", init_from=str(tmp_path / "first")
    )
    again.optim.lr = 0.0
    again.optim.wd = again.optim.wd_end = 0.0
    capsys.readouterr()
    train.train(again, tmp_path / "again")
    said = capsys.readouterr().out
    assert "predictor: from there, too" in said and "teacher: from there, too" in said
    mesh = partition.make_mesh(finished.MESH)
    old, new = (
        finished.load_model(finished.read_trained(tmp_path / x), mesh)[1]
        for x in ("first", "again")
    )
    for ours, theirs in zip(
        *map(jax.tree.leaves, (new.params, old.params)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    student, teacher = (jax.tree.leaves(x)[0] for x in (old.params, old.ema))
    assert np.abs(student - teacher).max() > 0


def test_a_fine_tuning_takes_from_its_start_what_the_recipe_leaves_open(
    imported, tmp_path
):
    """GELU, epsilon, mean and class token are MAE's, not those of ViT's own transfer."""
    from vit_ssl_jax import recipes

    config = recipes.load("transfer_vitb.py", init_from=str(imported))
    assert (config.vit.gelu, config.vit.cls, config.data.mean) == (None, None, None)
    (line,) = pretrained.inherit(config, tmp_path)
    theirs = finished.read_trained(imported).config
    assert config.vit.gelu == "exact" and "vit.gelu=exact" in line
    assert (config.vit.cls, config.vit.norm_eps) == (True, 1e-6)
    assert (config.data.mean, config.data.std) == (theirs.data.mean, theirs.data.std)
    told = recipes.load(
        "transfer_vitb.py", init_from=str(imported), **{"vit.gelu": "tanh"}
    )
    pretrained.inherit(told, tmp_path)
    assert told.vit.gelu == "tanh"
    alone = recipes.load("transfer_vitb.py")
    recipes.fill(alone, {})
    assert (alone.vit.gelu, alone.data.mean) == ("tanh", (0.5, 0.5, 0.5))


@pytest.mark.slow
def test_other_kinds_of_vit_are_asked_for_by_their_name(tmp_path):
    """A file with registers, and a run without: the message is the value to set."""
    file = tmp_path / "x.safetensors"
    save_file(registers_file(), file)
    config = supervised(steps=1, vit__variant="1x32x2/8")
    config.init_from = str(file)
    name = "1x32x2/8,registers=3,layerscale=1e-05"
    with pytest.raises(UserError, match="heads its width of 32"):
        train.train(config, tmp_path / "a")
    convert.import_file(file, tmp_path / "run", dict(FACTS, **EVEN))
    config.init_from = str(tmp_path / "run")
    with pytest.raises(UserError, match=rf"--config\.vit\.variant={name}"):
        train.train(config, tmp_path / "b")
    config.vit.variant, config.vit.posemb = name, "learned"
    train.train(config, tmp_path / "c")


EVEN = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def registers_file():
    """Arrays of DINOv2's layout: a ViT 1x32x2/8 with 3 registers, at 32 px."""
    from vit_ssl_jax.interop.names import DINOV2
    from vit_ssl_jax.models import layers, vit

    style = layers.Style(
        dtype="float32",
        norm_eps=1e-6,
        gelu="exact",
        init="timm",
        remat="none",
        unroll=1,
    )
    shape = dict(patch=8, depth=1, width=32, hidden=128, heads=2, registers=3)
    model = vit.ViT(
        **shape,
        grid=(4, 4),
        posemb="learned",
        cls=True,
        final_norm=True,
        droppath=0.0,
        dropout=0.0,
        style=style,
        form=layers.Form(layerscale=1e-5),
    )
    image = np.zeros((1, 32, 32, 3), np.float32)
    params = model.init(jax.random.key(0), image, False)["params"]
    rows = timm.encoder_rows(model, DINOV2)
    return table.export_params(rows, {"encoder": jax.tree.map(np.asarray, params)})


def test_files_come_out_for_timm_and_are_runs_again(classifier, tmp_path):
    """Export, and the folder taken as a run by `load`, `predict` and `convert`."""
    exporting.export(classifier, "timm", tmp_path / "timm")
    about = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert about["num_classes"] == 10 and about["model_args"]["num_heads"] == 2
    found = weights.read(tmp_path / "timm")
    trained = finished.read_trained(classifier)
    mesh = partition.make_mesh(finished.MESH)
    _, state = finished.load_model(trained, mesh)
    ours, theirs = map(jax.tree.leaves, (state.params, found.tree["params"]))
    assert all(map(np.array_equal, ours, theirs)) and len(ours) == len(theirs)
    exporting.export(tmp_path / "timm", "timm", tmp_path / "again")
    old, new = (
        load_file(tmp_path / x / "model.safetensors") for x in ("timm", "again")
    )
    assert sorted(old) == sorted(new)
    assert all(np.array_equal(old[name], new[name]) for name in old)


def test_stablehlo_is_the_model_with_its_weights(classifier, tmp_path):
    from vit_ssl_jax import classifier as classifiers

    out = tmp_path / "model.stablehlo"
    exporting.export(classifier, "stablehlo", out)
    program = jax.export.deserialize(out.read_bytes())
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    logits = program.call(np.float32(image) / 255)
    assert logits.shape == (3, 10)
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = classifiers.load(classifier).compute(image)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inspect", "nothing.pth"), "there is no nothing.pth"),
        (("inspect", "README.md"), "it is a text file ('# vit_ssl_jax"),
        (
            ("inspect", "setup.py", "--mean=blue"),
            "'blue' is not imagenet, half or three",
        ),
        (("inspect", "setup.py", "--size=a,b"), "--size=a,b: give H,W in pixels"),
        (("export", "nothing", "--to=hf", "--out=x"), "there is no checkpoint under"),
        (("export", ".", "--to=npz", "--out=x.pth"), "--out=x.pth: end it with .npz"),
        (("export", "."), "the following arguments are required: --to, --out"),
        (("improt", "x"), "invalid choice: 'improt'"),
    ],
)
def test_bad_input_is_one_message(words, said):
    done = start("convert", *words)
    assert done.returncode != 0 and said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_evaluate_features_and_predict_take_a_file(classifier, tmp_path):
    """Three commands on a folder of timm's, as a user types them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / "photos" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    exporting.export(classifier, "timm", tmp_path / "timm")
    run, photos = f"--checkpoint={tmp_path / 'timm'}", tmp_path / "photos"
    out = tmp_path / "features.npz"
    done = start("features", run, f"--images={photos}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        assert found["features"].shape == (40, 32)
    out = tmp_path / "predictions.csv"
    done = start("predict", run, f"--images={photos}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 41
    config = f"--config=configs/eval_folder.py:{photos}"
    done = start("evaluate", config, run, f"--workdir={tmp_path / 'judged'}")
    assert done.returncode == 0, done.stderr
    assert "knn" in done.stdout and list((tmp_path / "judged").rglob("*.json"))
