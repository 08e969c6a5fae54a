"""Features of patches: which blocks, the norm, the class token, another size."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators.dense import tokens


@dataclasses.dataclass
class Chosen:
    """What `tokens` reads of a config."""

    layers: tuple = (-1,)
    norm: bool = True
    cls: bool = False


def normalize(image):
    """As a run does, with plain numbers."""
    return 4.0 * image - 2.0


@pytest.fixture(scope="module")
def encoder(tiny):
    """A ViT of two blocks with a class token, and random parameters."""
    model = tiny.vit((8, 12), cls=True, posemb="learned")
    zeros = np.zeros((1, 8, 12, 3), np.float32)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), zeros)
    params = jax.tree.map(jax.numpy.asarray, tiny.random(shapes["params"]))
    return model, params


IMAGE = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)


def streams(model, params):
    """Every block's tokens `[L B N+1 D]`, and the last one's after the norm."""
    x = normalize(IMAGE / np.float32(255))
    return model.apply({"params": params}, x, False, lambda x: x)[::-1]


def norm(params, x):
    """The final LayerNorm, in numpy."""
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * np.asarray(params["norm"]["scale"]) + np.asarray(params["norm"]["bias"])


@pytest.mark.parametrize(
    ("layers", "cls", "normed"),
    [
        ((-1,), True, True),
        ((-1,), False, False),
        ((1, 2), True, False),
        ((1, 2), False, True),
        ((-2,), False, True),
    ],
)
def test_features_are_the_blocks_patches_side_by_side(encoder, layers, cls, normed):
    model, params = encoder
    every, _ = streams(model, params)
    c = Chosen(layers, normed, cls)
    found = jax.jit(tokens.make_reader(model, normalize, c))(params, IMAGE)
    parts = []
    for layer in layers:
        x = np.asarray(every[layer - 1 if layer > 0 else layer])
        x = norm(params, x) if normed else x
        parts.append(x[:, 1:])
        parts += [np.repeat(x[:, :1], 6, axis=1)] * cls
    wanted = np.concatenate(parts, -1).reshape(2, 2, 3, -1)
    assert found.shape[-1] == tokens.count(model, c)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_vit_without_a_class_token_has_none_to_give(tiny):
    model = tiny.vit((8, 8), cls=False)
    assert tokens.count(model, Chosen(cls=True)) == model.width


def test_another_size_has_positions_resampled(encoder):
    model, params = encoder
    bigger, changed = tokens.at_size(model, params, (16, 12))
    assert (bigger.grid, changed["posemb"].shape) == ((4, 3), (1, 13, model.width))
    np.testing.assert_array_equal(changed["posemb"][:, 0], params["posemb"][:, 0])
    image = np.zeros((1, 16, 12, 3), np.uint8)
    read = tokens.make_reader(bigger, normalize, Chosen())
    found = jax.eval_shape(read, changed, image)
    assert found.shape[:3] == (1, 4, 3)
    same, unchanged = tokens.at_size(model, params, (8, 12))
    assert same == model and unchanged is params
    with pytest.raises(UserError, match=r"\(9, 12\) px is not divisible by the patch"):
        tokens.at_size(model, params, (9, 12))


@pytest.mark.parametrize("layers", [(0,), (3,), (-3,), (1, 7)])
def test_blocks_that_are_not_there_are_told(layers):
    with pytest.raises(UserError, match=f"layers: {layers[-1]} is no block"):
        tokens.find_layers(layers, 2)
