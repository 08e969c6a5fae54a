"""Names of ViTs: split, put together again, and what is refused."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import attention, layers, stack, variants, vit
from vit_ssl_jax.models.fused import blocks as fused
from vit_ssl_jax.ops import rope

STYLE = layers.Style(
    dtype="float32", norm_eps=1e-6, gelu="exact", init="timm", remat="none", unroll=1
)
NAMES = [
    "B/16",
    "g/14",
    "4x128x4/4",
    "S/14,registers=4,layerscale=1e-05",
    "40x1536x24/14,hidden=4096,registers=4,layerscale=1e-05,mlp=swiglu",
    "B/16,registers=4,rope=100.0,layerscale=1e-05,qkv_bias=qv",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_parts_are_called(name):
    assert variants.encode(variants.decode(name)) == name


def test_what_a_name_leaves_out_is_as_in_the_first_vit():
    shape = variants.decode("B/16")
    assert (shape["hidden"], shape["registers"], shape["mlp"]) == (3072, 0, "gelu")
    assert variants.decode("B/16,hidden=2048")["hidden"] == 2048


@pytest.mark.parametrize(
    "extra",
    ["register=4", "registers=x", "registers=-1", "mlp=relu", "qkv_bias=k", "rope", ""],
)
def test_an_extra_that_is_none_lists_them(extra):
    with pytest.raises(UserError, match="behind the name may stand .*registers=.*mlp="):
        variants.decode(f"B/16,{extra}")


def make_vit(**changes):
    """A ViT of 3 x 4 patches with all that later ones have."""
    values = dict(
        grid=(3, 4),
        patch=4,
        depth=2,
        width=32,
        hidden=48,
        heads=4,
        posemb="none",
        cls=True,
        final_norm=True,
        droppath=0.0,
        dropout=0.0,
        style=STYLE,
        registers=2,
        form=layers.Form(rope=100.0, layerscale=0.5, mlp="swiglu", qkv_bias="qv"),
    )
    return vit.ViT(**values | changes)


@pytest.fixture(scope="module")
def model():
    """The ViT, its parameters and tokens `[2 12 32]`."""
    encoder = make_vit()
    image = np.random.default_rng(0).normal(size=(2, 12, 16, 3)).astype(np.float32)
    shapes = jax.eval_shape(
        lambda key: encoder.init(key, image, False), jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape) * 0.5), shapes)
    tokens = encoder.apply(params, image, method="embed")
    return encoder, params, tokens


def test_rotary_positions_follow_the_patches(model):
    """Tokens in another order, with their ids, give the same outputs in that order."""
    encoder, params, tokens = model
    order = np.stack([np.random.default_rng(i).permutation(12) for i in range(2)])
    moved = jnp.take_along_axis(tokens, order[:, :, None], 1)
    straight = encoder.apply(params, tokens, False, method="encode")
    turned = encoder.apply(params, moved, False, ids=order, method="encode")
    expected = jnp.take_along_axis(straight[:, 1:], order[:, :, None], 1)
    np.testing.assert_allclose(turned[:, 1:], expected, atol=1e-5)
    lost = encoder.apply(params, moved, False, method="encode")
    assert np.abs(lost[:, 1:] - expected).max() > 1e-3


def test_fewer_tokens_without_their_places_are_an_error(model):
    encoder, params, tokens = model
    with pytest.raises(ValueError, match="6 patches, but the rotary positions"):
        encoder.apply(params, tokens[:, :6], False, method="encode")


def test_registers_act_and_are_in_no_output(model):
    encoder, params, tokens = model
    out, seen = encoder.apply(params, tokens, False, None, lambda x: x, method="encode")
    assert out.shape == (2, 13, 32) and seen.shape == (2, 2, 13, 32)
    other = jax.tree.map(np.copy, params)
    other["params"]["registers"] *= -1.0
    moved = encoder.apply(other, tokens, False, method="encode")
    assert np.abs(moved - out).max() > 1e-3


def test_a_bias_that_the_form_has_not_is_never_added(model):
    """Nor does it get a gradient: the keys' under "qv"."""
    encoder, params, tokens = model

    def total(params):
        return encoder.apply(params, tokens, False, method="encode").sum()

    grad = jax.grad(total)(params)["params"]["blocks"]["block"]["attn"]["qkv"]["bias"]
    assert (grad[:, 1] == 0).all() and (
        np.abs(grad[:, [0, 2]]).max((1, 2, 3)) > 0
    ).all()


@pytest.mark.parametrize("valid", ["all", "lengths", "mask"])
def test_tokens_that_are_moved_for_flash_attention_keep_their_places(
    monkeypatch, valid
):
    """Plain attention and jax's of the same call as cuDNN's agree; 15 tokens, odd."""
    rng = np.random.default_rng(0)
    valid = dict(all=None, lengths=jnp.array([9, 15]), mask=rng.random((2, 15)) < 0.6)[
        valid
    ]
    blocks = stack.Blocks(2, 4, 48, STYLE, form=layers.Form(rope=100.0))
    table = rope.with_still(rope.table((3, 4), 8, 100.0)[None], 3)
    x = rng.normal(size=(2, 15, 32)).astype(np.float32)
    params = blocks.init(jax.random.key(0), x, False)
    run = functools.partial(blocks.apply, params, x, False, valid, rotations=table)
    plain, _ = run()
    by_cudnn = functools.partial(attention.by_cudnn, implementation="xla")
    monkeypatch.setattr(attention, "choose_flash", lambda *args: True)
    monkeypatch.setattr(attention, "by_cudnn", by_cudnn)
    moved, _ = run()
    seen = attention.as_mask(valid, 15) if valid is not None else np.ones((2, 15), bool)
    difference = np.where(np.asarray(seen).reshape(2, 15, 1), moved - plain, 0.0)
    np.testing.assert_allclose(difference, 0.0, atol=1e-5)


def test_rotation_turns_pairs_by_their_angle():
    """The first and the second half of a head are the two axes of a plane."""
    table = rope.table((2, 3), 8, 100.0)
    assert table.shape == (6, 2, 8)
    np.testing.assert_allclose((table**2).sum(1), 1.0, atol=1e-6)
    rows = np.arctan2(table[:, 1, 0], table[:, 0, 0])
    np.testing.assert_allclose(rows[[0, 3]], [-np.pi, np.pi], atol=1e-6)  # +-1/2 * 2 pi
    x = np.random.default_rng(0).normal(size=(1, 6, 1, 8)).astype(np.float32)
    turned = np.asarray(rope.rotate(x, table[None]))
    plane = x[..., :4] + 1j * x[..., 4:]
    plane = plane * np.exp(1j * np.arctan2(table[:, 1], table[:, 0]))[None, :, None, :4]
    expected = np.concatenate([plane.real, plane.imag], -1)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_the_fused_kernels_leave_such_blocks_alone(monkeypatch):
    """On a chip that has them; where only they are asked for, the reason is told."""
    kind = next(iter(fused.CHIPS))
    device = types.SimpleNamespace(device_kind=kind)
    mesh = types.SimpleNamespace(empty=False, abstract_device=device)
    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda: mesh)
    only = dataclasses.replace(STYLE, kernels="fused", dtype="bfloat16")
    for change in (dict(rope=100.0), dict(layerscale=0.5), dict(mlp="swiglu")):
        blocks = stack.Blocks(2, 4, 48, STYLE, form=layers.Form(**change))
        assert fused.choose(blocks, (2, 15, 32)) is None
        with pytest.raises(UserError, match="they have no rope, layerscale, SwiGLU"):
            fused.choose(blocks.clone(style=only), (2, 15, 32))
