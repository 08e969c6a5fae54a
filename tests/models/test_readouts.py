"""Readouts against LayerNorm and pooling of whole streams."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import readouts, stack, vit

IMAGE = np.float32(np.random.default_rng(0).random((3, 8, 12, 3)))


@pytest.fixture(scope="module", params=[(True, True), (False, True), (True, False)])
def case(request, tiny):
    """Model, parameters, whole streams `[L B N D]` normed by flax, and readout."""
    cls, norm = request.param
    model = tiny.vit((8, 12), norm, variant="3x32x4/4", cls=cls)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), IMAGE)["params"]
    params = tiny.random(shapes)

    @jax.jit
    def streams(params):
        out, stream = model.apply({"params": params}, IMAGE, False, stack.whole)
        if norm:
            flat = stream.reshape(-1, *stream.shape[2:])
            final = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)
            flat = final.apply({"params": params["norm"]}, flat)
            stream = flat.reshape(stream.shape)
        return out, stream, model.apply({"params": params}, IMAGE, method="readout")

    return model, *streams(params)


def test_every_block_is_normed_and_then_pooled(case):
    model, _, stream, found = case
    means = stream[:, :, int(model.cls) :].mean(2)
    assert found.shape == (3, 3, 1 + model.cls, 32)
    np.testing.assert_allclose(found[:, :, -1], means, atol=2e-6)
    if model.cls:
        np.testing.assert_allclose(found[:, :, 0], stream[:, :, 0], atol=2e-6)


@pytest.mark.parametrize("how", ["cls", "mean"])
def test_one_layer_is_the_pool_of_the_encoders_output(case, how):
    model, out, _, found = case
    if how == "cls" and not model.cls:
        pytest.skip("no class token")
    want = vit.pool(out, how, model.cls)
    got = readouts.choose(found, (1, how))
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_readouts_stand_side_by_side_first_layer_first():
    pooled = jnp.arange(3 * 1 * 2 * 2.0).reshape(3, 1, 2, 2)
    for readout, want in {
        (1, "cls"): [8, 9],
        (2, "cls"): [4, 5, 8, 9],
        (2, "mean"): [6, 7, 10, 11],
        (2, "cls+mean"): [4, 5, 8, 9, 10, 11],
    }.items():
        np.testing.assert_array_equal(readouts.choose(pooled, readout), [want])
    np.testing.assert_array_equal(
        readouts.choose(pooled[:, :, 1:], (1, "mean")), [[10, 11]]
    )


def test_readouts_that_the_encoder_lacks_are_refused():
    readouts.check_readout((4, "mean"), 4, cls=False)
    for readout, what in {
        (5, "mean"): "1 to 4 layers",
        (0, "mean"): "1 to 4 layers",
        (1, "max"): "cls, mean, cls",
        (1, "cls"): "needs a class token",
        (1, "cls+mean"): "needs a class token",
    }.items():
        with pytest.raises(UserError, match=what):
            readouts.check_readout(readout, 4, cls=False)
