"""Features: their order, what is left out, and where they are kept."""

import functools

import jax
import numpy as np
import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import features
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import images

READOUTS = ((1, "mean"), (2, "cls"), (1, "cls+mean"))


def normalize(image):
    """As a run does."""
    return images.normalize(image, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def batches(tiny):
    """Three batches of 8, the last with three images; the second's first is broken."""
    for i in range(3):
        batch = tiny.bytes(8, (8, 8), seed=i)
        valid = np.arange(8) < (3 if i == 2 else 8)
        valid[0] = i != 1
        yield batch | {"valid": valid, "label": np.arange(8 * i, 8 * i + 8)}


def devices(count):
    """A mesh of so many devices."""
    shape = dict(data=max(count // 4, 1), fsdp=min(count, 2), tensor=-1)
    return partition.make_mesh(shape, jax.devices()[:count])


@pytest.fixture(scope="module")
def encoder(tiny):
    """A ViT and random parameters."""
    model = tiny.vit((8, 8), cls=True)
    zeros = np.zeros((1, 8, 8, 3), np.float32)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), zeros)
    return model, tiny.random(shapes["params"])


def test_features_are_those_of_the_encoder_in_order_on_any_mesh(encoder, tiny):
    model, params = encoder
    one, eight = (
        features.make_extractor(model, devices(n), normalize)(
            params, batches(tiny), READOUTS
        )
        for n in (1, 8)
    )
    labels = [*range(8), *range(9, 16), *range(16, 19)]
    image = np.concatenate([b["image"][b["valid"]] for b in batches(tiny)])
    tokens = model.apply({"params": params}, normalize(image / np.float32(255)), False)
    for found, got in (one, eight):
        np.testing.assert_array_equal(got, labels)
        assert set(found) == set(READOUTS)
        assert found[2, "cls"].shape == (18, 64)
        want = vit.pool(tokens, "mean", True)
        np.testing.assert_allclose(found[1, "mean"], want, atol=5e-6)
        want = np.concatenate([vit.pool(tokens, "cls", True), want], axis=1)
        np.testing.assert_allclose(found[1, "cls+mean"], want, atol=5e-6)
    for readout in READOUTS:
        np.testing.assert_allclose(one[0][readout], eight[0][readout], atol=2e-6)


def test_twice_is_the_same_bits(encoder, tiny):
    model, params = encoder
    extract = features.make_extractor(model, devices(1), normalize)
    a, b = (extract(params, batches(tiny), ((1, "mean"),))[0] for _ in range(2))
    np.testing.assert_array_equal(a[1, "mean"], b[1, "mean"])


def test_large_sets_are_kept_on_disk_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = features.Rows(limit=100)
    pieces = [np.full((n, 3), i, np.float32) for i, n in enumerate((5, 2, 8, 1, 40))]
    for piece in pieces:
        rows.append(piece)
    got = rows.read()
    assert isinstance(got, np.memmap)
    np.testing.assert_array_equal(got, np.concatenate(pieces))
    assert not list(tmp_path.iterdir())


def test_small_sets_stay_in_memory():
    rows = features.Rows(limit=100)
    rows.append(np.ones((2, 3), np.float32))
    assert type(rows.read()) is np.ndarray


def test_sets_of_classes_are_kept_as_they_are(tiny):
    sets = np.eye(8, dtype=np.int8)
    batch = tiny.bytes(8) | {"label": sets, "valid": np.arange(8) != 2}
    _, labels = features.pixels([batch], devices(1))
    np.testing.assert_array_equal(labels, np.delete(sets, 2, axis=0))


def test_a_readout_that_the_encoder_lacks_is_refused(encoder):
    with pytest.raises(UserError, match="1 to 2 layers"):
        features.make_reader(encoder[0], normalize, ((1, "mean"), (3, "mean")))
