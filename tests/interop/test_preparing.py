"""How a file says that its images were prepared: photos come out as its library's."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests import runs
from tests.interop import originals
from vit_ssl_jax import finished
from vit_ssl_jax.data import crops
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.interop import files, preparing, recognise

originals.need()
SIZE = 32
TIMM = [
    dict(crop_pct=0.9, interpolation="bicubic"),
    dict(crop_pct=1.0, interpolation="bilinear"),
    dict(crop_pct=0.875, interpolation="bicubic", crop_mode="squash"),
]
HF = [
    ("ViTImageProcessorPil", dict(size=dict(height=SIZE, width=SIZE))),
    (
        "BitImageProcessorPil",
        dict(size=dict(shortest_edge=37), crop_size=dict(height=SIZE, width=SIZE)),
    ),
]


@pytest.fixture(scope="module")
def photo():
    """Of 90 x 61 px, smooth as photos are."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    return Image.fromarray(noise).resize((90, 61), Image.Resampling.BICUBIC)


def prepare(photo, facts):
    """The photo as a run with these facts evaluates it, standardised `[H W 3]`."""
    image = crops.resize_and_center_crop(
        np.asarray(photo),
        size=(SIZE, SIZE),
        resize=preparing.find_resize((SIZE, SIZE), facts["crop_pct"]),
        interpolation=facts["interpolation"],
        squash=facts["squash"],
    )
    return (image / 255 - facts["mean"]) / facts["std"]


@pytest.mark.parametrize("config", TIMM)
def test_photos_are_prepared_as_timm_does(photo, config):
    originals.load()
    from timm.data import create_transform

    config = (
        dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_mode="center") | config
    )
    theirs = create_transform(input_size=(3, SIZE, SIZE), **config)(photo)
    ours = prepare(photo, preparing.from_timm(config))
    np.testing.assert_allclose(ours, np.moveaxis(theirs.numpy(), 0, -1), atol=1e-5)


@pytest.mark.parametrize(("name", "changes"), HF)
def test_photos_are_prepared_as_transformers_does(photo, name, changes, tmp_path):
    """By the file that it writes."""
    _, _, transformers = originals.load()
    processor = getattr(transformers, name)(**changes, image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path)
    facts = preparing.from_hf(
        json.loads((tmp_path / "preprocessor_config.json").read_text())
    )
    theirs = np.moveaxis(processor(photo)["pixel_values"][0], 0, -1)
    assert theirs.shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(prepare(photo, facts), theirs, atol=1e-5)


@pytest.mark.parametrize("resize", [224, 248, 249, 251, 256, 300])
@pytest.mark.parametrize("squash", [False, True])
def test_what_is_written_is_read_back(resize, squash):
    data = dict(
        size=(224, 224),
        resize=resize,
        squash=squash,
        interpolation="bilinear",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )
    for facts in (
        preparing.from_timm(preparing.to_timm(data)),
        preparing.from_hf(preparing.to_hf(data)),
    ):
        assert preparing.find_resize((224, 224), facts.pop("crop_pct")) == resize
        assert facts == {k: data[k] for k in ("squash", "interpolation", "mean", "std")}
    crop_pct = preparing.to_timm(data)["crop_pct"]
    assert int(224 / crop_pct) == resize  # as timm rounds


def test_old_files_say_one_number():
    """The short side where it is cropped, both sides where it isn't."""
    assert preparing.from_hf(
        dict(size=256, do_center_crop=True, crop_size=224)
    ) == dict(squash=False, crop_pct=0.875)
    assert preparing.from_hf(dict(size=224)) == dict(squash=True, crop_pct=1.0)


def test_images_that_are_not_normalised_and_filters_that_are_unknown():
    facts = preparing.from_hf(dict(do_normalize=False))
    assert facts == dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="filter 1; known are 2 .bilinear., 3 .bicubic"):
        preparing.from_hf(dict(resample=1))


def test_a_folder_s_facts_come_from_both_of_its_files(tmp_path):
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1e-5}')
    text = json.dumps(dict(image_mean=[0.1, 0.2, 0.3], size=dict(shortest_edge=256)))
    (tmp_path / "preprocessor_config.json").write_text(text)
    facts = recognise.told(files.read_about(tmp_path))
    assert facts["mean"] == (0.1, 0.2, 0.3) and facts["norm_eps"] == 1e-5


def test_another_size_takes_the_same_part_of_the_image():
    data = ConfigDict(dict(size=(518, 518), resize=592))
    assert finished.scale_resize(data, (224, 224)) == 256
    config = runs.small("mae")
    assert finished.scale_resize(config.data, config.data.size) == config.data.resize
