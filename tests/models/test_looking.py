"""Attention read from a ViT: by numpy from its weights, and where it was planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.models import looking
from vit_ssl_jax.ops import heatmap

close = np.testing.assert_allclose


def make(tiny, **changes):
    """A ViT, random parameters, and images."""
    encoder = tiny.vit(**{"variant": "2x32x4/8", "cls": True} | changes)
    image = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    init = lambda key: encoder.init(key, image, False)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    return encoder, tiny.random(shapes), image


def attend(x, block, eps=1e-6):
    """A block's attention, in float64."""
    x = np.float64(x)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    x = x * block["norm1"]["scale"] + block["norm1"]["bias"]
    qkv = np.einsum("bsd,dhae->hbsae", x, block["attn"]["qkv"]["kernel"])
    qkv = qkv + block["attn"]["qkv"]["bias"][:, None, None]
    scores = np.einsum("bsae,btae->bast", qkv[0], qkv[1]) / np.sqrt(qkv.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_the_attention_is_that_of_the_last_block(tiny):
    encoder, params, image = make(tiny)
    found = encoder.apply({"params": params}, image, method=looking.last_attention)
    assert found.shape == (2, 4, 17, 17)
    # What the last block gets: a ViT of the blocks before it.
    one = jax.tree.map(lambda x: x[:1], params["blocks"])
    shorter = encoder.clone(depth=1, final_norm=False)
    x = shorter.apply({"params": params | {"blocks": one}}, image, False)
    last = jax.tree.map(lambda x: x[1], params["blocks"]["block"])
    close(found, attend(x, last), atol=1e-5)
    row = encoder.apply({"params": params}, image, method=looking.class_attention)
    close(row, found[:, :, 0, 1:].mean(1), atol=1e-7)


@pytest.mark.parametrize("extras", ["registers=3", "rope=100"])
def test_registers_are_left_out_and_positions_may_be_rotary(tiny, extras):
    encoder, params, image = make(tiny, variant=f"2x32x4/8,{extras}", posemb="none")
    whole = encoder.apply({"params": params}, image, method=looking.last_attention)
    row = encoder.apply({"params": params}, image, method=looking.class_attention)
    close(whole.sum(-1), 1, rtol=1e-5)
    assert row.shape == (2, 16) and whole.shape[-1] == 17 + encoder.registers
    close(row, whole[:, :, 0, -16:].mean(1), atol=1e-7)


def test_planted_attention_is_seen_where_it_is(tiny):
    """One block in which the class token asks for a feature that one patch has."""
    encoder, params, _ = make(tiny, variant="1x32x4/8", posemb="none")
    params = jax.tree.map(np.zeros_like, params)
    patch, qkv = params["patch"], params["blocks"]["block"]["attn"]["qkv"]
    patch["kernel"][:, 0] = 1  # feature 0: brightness
    params["blocks"]["block"]["norm1"]["scale"][:] = 1
    qkv["kernel"][0, 0, 1, :, 0] = 1  # keys: feature 0
    qkv["bias"][0, 0, :, 0] = 20  # queries: all ask for it
    image = np.zeros((3, 32, 32, 3), np.float32)
    places = [0, 6, 15]
    for i, place in enumerate(places):
        row, col = divmod(place, 4)
        image[i, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] = 1
    shares = encoder.apply({"params": params}, image, method=looking.class_attention)
    assert (np.asarray(shares).argmax(-1) == places).all() and (
        shares.max(-1) > 0.99
    ).all()
    ((name, picture),) = looking.look(encoder, params, image, "cls", "a crop").items()
    assert name.startswith("a crop: self-attention of the class token")
    wanted = heatmap.of_patches(jnp.asarray(np.eye(16)[places], jnp.float32), (4, 4), 8)
    close(picture, wanted, atol=1e-4)


def test_without_a_class_token_it_is_a_similarity_and_says_so(tiny):
    encoder, params, image = make(tiny, cls=False)
    tokens = np.asarray(encoder.apply({"params": params}, image, False))
    found = encoder.apply({"params": params}, image, method=looking.similarity)
    wanted = tokens.mean(1, keepdims=True)  # as it is pooled
    wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True)
    close(found, (tokens * wanted).sum(-1) / np.linalg.norm(tokens, axis=-1), atol=1e-5)
    ((name, picture),) = looking.look(encoder, params, image, "mean", "a crop").items()
    assert (
        name.startswith("a crop: similarity of the patches")
        and picture.shape == image.shape
    )
