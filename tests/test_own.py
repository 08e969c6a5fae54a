"""Own images: what is chosen by their number, and that it is said."""

import pytest

from vit_ssl_jax import own, recipes
from vit_ssl_jax.errors import UserError


@pytest.mark.parametrize(
    ("images", "device", "batch", "epochs", "variant"),
    [
        (270, "cpu", 32, 185, "Ti/16"),
        (40, "cpu", 8, 1250, "Ti/16"),
        (5, "cpu", 4, 1600, "Ti/16"),
        (10_000, "gpu24", 256, 500, "S/16"),
        (300_000, "gpu80", 1024, 100, "B/16"),
    ],
)
def test_choices_by_the_number_of_images(images, device, batch, epochs, variant):
    config = recipes.load("own.py")
    first, *notes = own.choose(config, images, device)
    assert (config.batch_size, config.epochs) == (batch, epochs)
    assert (config.vit.variant, config.batch_size <= images) == (variant, True)
    assert config.optim.warmup_epochs == pytest.approx(epochs / 10)
    assert f"ViT-{variant}, batches of {batch}, {epochs} epochs" in first
    assert bool(notes) == (images < 10_000)


def test_the_rate_grows_with_the_root_of_the_batch_to_a_bound():
    assert own.rate(256) == 1e-3
    assert own.rate(64) == pytest.approx(own.rate(256) / 2)
    assert own.rate(4096) == own.rate(2048) == 1.5e-3


def test_what_was_given_stays_and_other_configs_too():
    given = {"batch_size": 7, "epochs": 3.0, "optim.lr": 0.5, "vit.variant": "S/16"}
    config = recipes.load("own.py:ijepa,gpu80", **given)
    own.choose(config, 1000, "cpu")
    assert [config.batch_size, config.epochs, config.optim.lr] == [7, 3.0, 0.5]
    assert (config.vit.variant, config.vit.dtype) == ("S/16", "bfloat16")
    other = recipes.load("mae_vitb.py")
    assert own.choose(other, 1000, "cpu") == [] and other == recipes.load("mae_vitb.py")
    with pytest.raises(UserError, match="1 image is too few"):
        own.choose(recipes.load("own.py"), 1, "cpu")


def test_classes_of_devices():
    assert own.class_of("gpu", 24 * 2**30) == "gpu24"
    assert own.class_of("gpu", 80 * 2**30) == own.class_of("gpu", None) == "gpu80"
    assert (own.class_of("tpu", None), own.class_of("cpu", 2**30)) == ("tpu", "cpu")
