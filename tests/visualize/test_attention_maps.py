"""Attention maps and rollout: planted, in closed form, and against NumPy's blocks."""

import jax
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.visualize import attention

LATER = "2x32x4/8,registers=2,layerscale=0.5,mlp=swiglu,qkv_bias=qv"
FORMS = {
    "plain": dict(variant="2x32x4/8", cls=True, posemb="learned"),
    "later": dict(variant=LATER, cls=True, posemb="rope"),
    "without_class_token": dict(variant="2x32x2/16,qkv_bias=none", posemb="sincos"),
    "bfloat16": dict(variant="2x32x4/8", cls=True, dtype="bfloat16"),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    """A name of FORMS; tests of one form follow each other."""
    return request.param


@pytest.fixture(scope="module")
def images(tiny):
    return tiny.bytes(3)["image"]


@pytest.fixture(scope="module")
def seen(form, make_encoder, images):
    """An encoder with random weights, the last stream `[B T D]`, weights `[L B A T T]`."""
    encoder = make_encoder(**FORMS[form])
    module, count = encoder.module, len(images)
    tokens = module.cls + module.registers + module.grid[0] * module.grid[1]
    start = np.zeros((module.depth, count, module.heads, tokens, tokens), np.float32)

    @jax.jit
    def compute(params, image):
        def push(state, weights):
            return jax.numpy.concatenate([state[1:], weights[None]])

        return attention.walk(module, params, image, push, start, layer=module.depth)

    return encoder, *jax.device_get(compute(encoder.params, np.float32(images / 255)))


def test_weights_are_those_of_the_model(seen, images, plain):
    """NumPy's blocks have the same weights, and with ours they give the model's tokens."""
    encoder, stream, weights = seen
    module, params = encoder.module, encoder.params
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    tokens = jax.device_get(encoder.apply(params, np.float32(images / 255)))
    first, _ = module.apply(
        {"params": params}, np.float32(images / 255), method=attention.enter
    )
    low = module.style.dtype == "bfloat16"
    near, nearer = (0.1, 2e-2) if low else (1e-4, 1e-5)
    for i, x in enumerate(np.float64(first)):
        for layer in range(module.depth):
            own = plain.weights(module, params, x, layer)
            np.testing.assert_allclose(weights[layer, i], own, atol=nearer)
            x = plain.block(module, params, x, layer, np.float64(weights[layer, i]))
        np.testing.assert_allclose(stream[i], x, atol=near)
        x = plain.norm(module, params["norm"], x)
        x = np.delete(x, range(module.cls, module.cls + module.registers), axis=0)
        np.testing.assert_allclose(tokens[i], x, atol=near)


def test_maps_and_rollout_are_rows_of_the_weights(seen, form, images):
    """Rollout is NumPy's product of the blocks' matrices; the first block has maps, too."""
    encoder, _, weights = seen
    first = encoder.module.cls + encoder.module.registers
    cls, mean, third = slice(0, 1), slice(first, None), slice(first + 3, first + 4)
    rows = dict(later={"cls": cls, 3: third}, without_class_token={"": mean})
    eye = np.eye(weights.shape[-1])
    rolled = eye
    for block in np.float64(weights):
        rolled = (0.5 * block.mean(1) + 0.5 * eye) @ rolled
    for query, row in rows.get(form, {}).items():
        own = weights[-1][:, :, row, first:].mean(2)
        maps = attention.maps(encoder, images, query=query)
        np.testing.assert_allclose(maps, own, atol=1e-5)
        whole = attention.rollout(encoder, images, query=query)
        np.testing.assert_allclose(whole, rolled[:, row, first:].mean(1), atol=1e-5)
    if form == "plain":
        early = attention.maps(encoder, images, layer=1)
        np.testing.assert_allclose(early, weights[0][:, :, 0, 1:], atol=1e-5)


TARGET = 9


def plant(module, params):
    """The class token's first head sees patch TARGET alone, the second all alike.

    Tokens are their positions: unit vectors, one for the class token, one for the target,
    one for all others.
    """
    params = jax.tree.map(np.zeros_like, params)
    table = params["posemb"][0]
    table[:, 2] = table[0, 1] = table[1 + TARGET, 0] = 5.0
    table[[0, 1 + TARGET], 2] = 0.0
    block = params["blocks"]["block"]
    block["norm1"]["scale"][:] = 1.0
    kernel = block["attn"]["qkv"]["kernel"]  # [L D 3 A E]
    kernel[:, 1, 0, :, 0] = 10.0  # the class token asks, in both heads
    kernel[:, 0, 1, 0, 0] = 10.0  # the target answers, in the first
    return params


def test_planted_attention_is_found(make_encoder, images):
    """And the second head's shares are one in 17, the number of tokens."""
    form = dict(variant="1x32x2/8", cls=True, posemb="learned")
    encoder = make_encoder(plant, **form)
    maps = attention.maps(encoder, images)
    assert maps.shape == (3, 2, 16)
    np.testing.assert_allclose(maps[:, 0], [np.eye(16)[TARGET]] * 3, atol=1e-6)
    np.testing.assert_allclose(maps[:, 1], 1 / 17, atol=1e-6)
    rolled = attention.rollout(encoder, images)
    wanted = 0.25 / 17 + 0.25 * np.eye(16)[TARGET]
    np.testing.assert_allclose(rolled, [wanted] * 3, atol=1e-6)
    other = attention.maps(encoder, images, query=4)  # asks for the contrary
    np.testing.assert_allclose(
        other[:, 0], [(1 - np.eye(16)[TARGET]) / 16] * 3, atol=1e-6
    )
    np.testing.assert_allclose(other[:, 1], 1 / 17, atol=1e-6)


def test_rollout_of_even_attention_in_closed_form(make_encoder, images):
    """`((J / T + I) / 2)^L = (1 - 2^-L) J / T + 2^-L I`."""
    encoder = make_encoder(
        lambda module, params: jax.tree.map(np.zeros_like, params),
        variant="3x32x2/8,registers=1",
        cls=True,
    )
    share = (1 - 1 / 8) / 18
    np.testing.assert_allclose(attention.rollout(encoder, images), share, atol=1e-6)
    own = attention.rollout(encoder, images, query=5)
    np.testing.assert_allclose(own, [share + np.eye(16)[5] / 8] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("cls", "'cls': this ViT has no class token; use 'mean'"),
        ("max", "'max' is neither cls nor mean, nor a patch, 0 to 15"),
        (16, "16 is neither"),
        (-1, "-1 is neither"),
    ],
)
def test_queries_that_there_are_none_of(tiny, query, said):
    with pytest.raises(UserError, match=said):
        attention.find_query(tiny.vit(variant="2x32x4/8"), query)
