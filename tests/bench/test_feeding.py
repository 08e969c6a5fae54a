"""`bench input`: its figures fit each other, and what it says of a host."""

import dataclasses

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests import runs
from vit_ssl_jax import plan, train_data
from vit_ssl_jax.bench import feeding, pillow
from vit_ssl_jax.data import decoding


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty JPEGs, one of which is broken."""
    top = tmp_path_factory.mktemp("photos")
    for i in range(40):
        image = skimage.data.coffee()[3 * i : 3 * i + 120, 4 * i : 4 * i + 160]
        Image.fromarray(image).save(top / f"{i:02}.jpg")
    (top / "07.jpg").write_bytes((top / "07.jpg").read_bytes()[:200])
    return top


@pytest.fixture(scope="module")
def figures(photos):
    changes = dict(data__name="folder", data__dir=str(photos), data__crop=(0.2, 1.0))
    return feeding.measure(runs.small("mae", **changes), 0.5)


def test_every_stage_of_an_image_takes_time(figures):
    micro = figures["microseconds"]
    assert list(micro) == [
        *("read", "decode", "crop, resize, augment", "batch", "batch to device"),
    ]
    assert all(value > 0 for value in micro.values())
    one = sum(micro.values()) / 1e6
    assert 0 < figures["microseconds_under_lock"] / 1e6 < 20 * one


def test_rates_fit_each_other(figures):
    each = figures["images_per_second_of_a_core"] * figures["cores"]
    assert figures["images_per_second"] == pytest.approx(each)
    said = feeding.describe(figures)
    assert f"input: {figures['images_per_second']:,.0f} images/s" in said
    assert "Pillow: " in said and "under Python's lock" in said


def test_pillow_s_pixels_are_what_is_compared_with(photos):
    """To the bit where a config asks for that, near where it doesn't."""
    psnr = {}
    for way in ("pillow", "near", "fast"):
        how = dict(data__pixels=way, data__size=(64, 64), data__crop=(0.2, 1.0))
        where = dict(data__name="folder", data__dir=str(photos))
        config = runs.small("mae", **how, **where).copy_and_resolve_references()
        source, _ = train_data.open_data(config)
        source = dataclasses.replace(source, quick=way == "fast")
        psnr[way] = pillow.compare(source, config.data, 20)["psnr"]
    assert psnr["pillow"] == np.inf
    assert np.inf > psnr["near"] > psnr["fast"] > 25


def test_a_host_that_is_fed_and_one_that_is_not(figures):
    rate = figures["images_per_second"]
    for need, said in ((rate / 2, "enough"), (2 * rate, "feeds 50 % of it")):
        told = feeding.describe(figures | dict(needed=need, topology="v5e:2x4"))
        assert f"v5e:2x4 eats {need:,.0f} images/s a host: " in told and said in told


@pytest.mark.slow  # ~ 15 s, a compilation
def test_what_a_host_must_deliver_is_what_its_plan_says():
    """A host of one card and, of two hosts with a card each, half of their rate."""
    config = runs.small("mae", batch_size=64)
    figures = plan.plan(config, "2*h100:1", say=lambda _: None)
    assert figures["hosts"] == 2 and figures["images_per_second"] > 0
    needed = feeding.need(config, "2*h100:1")
    assert needed == pytest.approx(figures["images_per_second"] / 2)
    assert feeding.need(config, "devices") is None  # a CPU's speed is in no table


def test_quick_decoding_is_near_the_exact_one(photos):
    content = (photos / "00.jpg").read_bytes()
    exact, quick = (decoding.decode(content, quick=q).astype(float) for q in (0, 1))
    assert 0 < np.abs(exact - quick).mean() < 5
