"""The ViT: sizes, positions, what may see what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.models import crops, stack, variants, vit
from vit_ssl_jax.ops import posemb

# Parameters with class token, learned positions and final norm at 224 px, by patch.
COUNTS = {
    "Ti": {32: 5_938_560, 16: 5_524_416, 14: 5_501_376, 8: 5_526_720},
    "S": {32: 22_493_952, 16: 21_665_664, 14: 21_619_584, 8: 21_670_272},
    "B": {32: 87_455_232, 16: 85_798_656, 14: 85_706_496, 8: 85_807_872},
    "L": {32: 305_510_400, 16: 303_301_632, 14: 303_178_752, 8: 303_313_920},
    "H": {32: 633_679_360, 16: 630_918_400, 14: 630_764_800, 8: 630_933_760},
    "g": {16: 1_011_371_392, 14: 1_011_202_432},
    "G": {16: 1_842_975_360, 14: 1_842_775_680},
}
A_BLOCK = dict(Ti=444_864, S=1_774_464, B=7_087_872, L=12_596_224, H=19_677_440)
A_BLOCK |= dict(g=25_250_176, G=38_361_728)
WITH_HEAD = {  # 1000 classes
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "B/16": 86_567_656,
    "L/16": 304_326_632,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
    "G/14": 1_844_440_680,
}


def shapes_of(model, *inputs):
    """Shapes of a model's parameters, without computing any."""
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), *inputs)["params"]


def image(size, batch=1):
    """The shape of an image."""
    return jax.ShapeDtypeStruct((batch, *size, 3), jnp.float32)


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(tiny, name):
    for patch, count in COUNTS[name].items():
        numbers = dict(variant=f"{name}/{patch}", posemb="learned", cls=True)
        shapes = shapes_of(tiny.vit((224, 224), **numbers), image((224, 224)))
        assert vit.parameter_count(shapes) == count
    depth = variants.VARIANTS[name][0]
    assert vit.parameter_count(shapes["blocks"]) == depth * A_BLOCK[name]


@pytest.mark.parametrize("variant", WITH_HEAD)
def test_published_parameter_counts_with_a_classifier(tiny, variant):
    numbers = dict(variant=variant, posemb="learned", cls=True)
    method = tiny.method("supervised", (224, 224), numbers, pool="cls")
    model = method.model.clone(num_classes=1000)
    shapes = shapes_of(model, {"image": image((224, 224))})
    assert vit.parameter_count(shapes) == WITH_HEAD[variant]


@pytest.mark.parametrize(
    "variant", ["B16", "B/0", "B/x", "Q/16", "2x30x4/4", "0x8x1/4"]
)
def test_unknown_variants_are_refused(variant):
    with pytest.raises(UserError, match="config.vit.variant"):
        variants.decode(variant)


@pytest.mark.parametrize(
    "changes, key",
    [
        (dict(posemb="alibi"), "posemb"),
        (dict(posemb="rope", variant="2x24x4/4"), "config.vit.posemb: 'rope' needs"),
        (dict(dtype="float16"), "dtype"),
        (dict(gelu="fast"), "gelu"),
        (dict(init="he"), "init"),
        (dict(remat="some"), "remat"),
        (dict(unroll=0), "unroll"),
        (dict(variant="2x6x1/4"), "variant"),
        (dict(variant="2x32x4/5"), "config.data.size"),
    ],
)
def test_bad_values_are_refused_by_name(tiny, changes, key):
    with pytest.raises(UserError, match=key):
        tiny.vit(**changes)


@pytest.fixture(scope="module")
def make(tiny):
    """`(**changes) -> model, params` of a 2x3 grid, with random parameters."""

    def make(**changes):
        model = tiny.vit((8, 12), **changes)
        return model, tiny.random(shapes_of(model, image((8, 12))))

    return make


def tokens(count, batch=2):
    """Random tokens of width 32."""
    return np.float32(np.random.default_rng(0).normal(size=(batch, count, 32)))


def place(model, params, x):
    """Tokens with their positions."""
    return model.apply({"params": params}, x, method="place")


@pytest.mark.parametrize("kind", ["sincos", "sincos_big_vision"])
def test_fixed_positions_are_added(make, kind):
    model, params = make(posemb=kind)
    table = posemb.sincos((2, 3), 32, endpoint=kind != "sincos")
    np.testing.assert_array_equal(place(model, params, jnp.zeros((1, 6, 32)))[0], table)
    assert "posemb" not in params


def test_no_positions_add_nothing(make):
    x = tokens(6)
    np.testing.assert_array_equal(place(*make(posemb="none"), x), x)


@pytest.mark.parametrize("cls", [True, False])
def test_row_0_of_learned_positions_is_that_of_the_class_token(make, cls):
    model, params = make(posemb="learned", cls=cls)
    assert params["posemb"].shape == (1, 6 + cls, 32)
    placed = place(model, params, jnp.zeros((1, 6, 32)))
    np.testing.assert_array_equal(placed, params["posemb"][:, int(cls) :])
    if cls:
        run = functools.partial(model.apply, method="encode", train=False)
        x = tokens(6)
        moved = params | {"cls": params["cls"] + params["posemb"][:, :1]}
        moved["posemb"] = params["posemb"] * (np.arange(7) > 0)[None, :, None]
        np.testing.assert_allclose(
            run({"params": params}, x), run({"params": moved}, x), atol=1e-6
        )


def test_embedding_is_a_dense_layer_on_patches_of_a_non_square_image(make):
    model, params = make()
    x = np.float32(np.random.default_rng(1).random((2, 8, 12, 3)))
    out = model.apply({"params": params}, x, method="embed")
    crop = x[:, 4:8, 8:12].reshape(2, -1)  # token 5: row 1, column 2
    expected = crop @ params["patch"]["kernel"] + params["patch"]["bias"]
    np.testing.assert_allclose(out[:, 5], expected, atol=1e-5)
    with pytest.raises(ValueError, match="divisible"):
        model.apply({"params": params}, x[:, :6], method="embed")
    with pytest.raises(ValueError, match="grid of 2x3"):
        model.apply({"params": params}, out[:, :3], method="place")


def test_a_smaller_grid_gets_the_positions_of_a_whole_image(tiny):
    """A table that is linear in row and column stays so, squeezed."""
    model = tiny.vit((16, 16), posemb="learned")
    ramp = np.arange(4.0)
    table = np.stack(np.meshgrid(ramp, 10 * ramp, indexing="ij"), -1).reshape(16, 2)
    table = np.pad(table, ((0, 0), (0, model.width - 2)))[None].astype(np.float32)
    zeros = np.zeros((1, 4, model.width), np.float32)
    out = model.apply({"params": {"posemb": table}}, zeros, (2, 2), method="place")
    # Anti-aliased: every new row is a mean over the old, so within the old range.
    rows = np.asarray(out[0, :, 0]).reshape(2, 2)
    np.testing.assert_allclose(rows.mean(), 1.5, atol=1e-5)
    assert 0 < rows[0, 0] < 1 and 2 < rows[1, 0] < 3
    np.testing.assert_allclose(out[0, :, 1].reshape(2, 2), 10 * rows.T, rtol=1e-5)


@pytest.fixture(scope="module")
def encode(make):
    """The jitted encoder without class token: `(tokens, valid) -> tokens`."""
    model, params = make()

    @jax.jit
    def encode(x, valid=None):
        return model.apply({"params": params}, x, False, valid, method="encode")

    return encode


def test_encoder_has_no_order_of_its_own(encode):
    x, order = tokens(6), [3, 0, 5, 1, 4, 2]
    out = encode(x[:, order])
    np.testing.assert_allclose(out, encode(x)[:, order], atol=1e-5)


VALID = np.array([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0]], bool)


def test_an_invalid_token_changes_no_bit_of_a_valid_one(encode):
    x = tokens(6)
    other = np.where(VALID[..., None], x, 100.0).astype(np.float32)
    ours, changed = encode(x, VALID), encode(other, VALID)
    np.testing.assert_array_equal(ours[VALID], changed[VALID])
    assert np.abs(encode(x) - encode(other))[VALID].max() > 1e-3


def test_an_invalid_token_has_exactly_no_gradient(encode):
    def valid_part(x):
        return jnp.sum(jnp.where(VALID[..., None], jnp.sin(encode(x, VALID)), 0.0))

    gradient = jax.grad(valid_part)(tokens(6))
    assert np.all(gradient[~VALID] == 0)
    assert np.all(np.abs(gradient[VALID]).max(-1) > 0)


def test_valid_tokens_come_out_as_if_alone(encode):
    x = tokens(6)
    ours = encode(x, VALID)
    for row, valid in enumerate(VALID):
        alone = encode(x[row : row + 1, valid])
        np.testing.assert_allclose(ours[row, valid], alone[0], atol=1e-5)


def test_class_token_comes_first_and_is_always_valid(make):
    model, params = make(cls=True)
    run = functools.partial(model.apply, {"params": params}, method="encode")
    x = tokens(6)
    out = run(x, False, VALID)
    assert out.shape == (2, 7, 32)
    alone = run(x[:1, VALID[0]], False)
    np.testing.assert_allclose(out[0, 0], alone[0, 0], atol=1e-5)


def test_collect_gives_the_stream_after_every_block(make):
    model, params = make()
    x = np.float32(np.random.default_rng(2).random((2, 8, 12, 3)))
    out, stream = model.apply({"params": params}, x, False, collect=stack.whole)
    assert stream.shape == (2, 2, 6, 32)
    last = stream[-1]
    mean, var = last.mean(-1, keepdims=True), last.var(-1, keepdims=True)
    scale = params["norm"]["scale"][None, None]
    bias = params["norm"]["bias"][None, None]
    expected = (last - mean) / np.sqrt(var + 1e-6) * scale + bias
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_without_final_norm_the_stream_comes_out(make, tiny):
    model, params = make()
    bare = model.clone(final_norm=False)
    x = np.float32(np.random.default_rng(2).random((2, 8, 12, 3)))
    rest = {k: v for k, v in params.items() if k != "norm"}
    out, stream = bare.apply({"params": rest}, x, False, collect=stack.whole)
    np.testing.assert_array_equal(out, stream[-1])


@pytest.mark.parametrize("final_norm", [True, False])
def test_tokens_are_float32_under_bfloat16(tiny, final_norm):
    model = tiny.vit((8, 12), final_norm, dtype="bfloat16")
    out, variables = jax.eval_shape(
        functools.partial(model.init_with_output, train=False),
        jax.random.key(0),
        image((8, 12)),
    )
    assert {x.dtype.name for x in jax.tree.leaves((out, variables))} == {"float32"}


def test_pool():
    x = jnp.arange(12.0).reshape(1, 4, 3)
    np.testing.assert_array_equal(vit.pool(x, "cls", True), [[0, 1, 2]])
    np.testing.assert_array_equal(vit.pool(x, "mean", True), [[6, 7, 8]])
    np.testing.assert_array_equal(vit.pool(x, "mean", False), [[4.5, 5.5, 6.5]])


def test_rotary_positions_of_a_smaller_grid_are_those_of_a_vit_of_that_size(tiny):
    whole = tiny.vit(posemb="rope", cls=True)
    small = tiny.vit((16, 16), posemb="rope", cls=True)
    assert whole.rope == vit.ROPE and whole.posemb == "none"
    assert tiny.vit(posemb="rope", variant="2x32x4/4,rope=50").rope == 50.0
    image = jnp.float32(tiny.batch(2, (16, 16))["image"])
    params = whole.init(jax.random.key(0), tiny.batch(2)["image"], False)
    found = crops.encode(whole.bind(params), image[:, None], False)
    np.testing.assert_allclose(found, small.apply(params, image, False), atol=1e-5)
    with pytest.raises(ValueError, match="16 patches, but the rotary positions"):
        bound = whole.bind(params)
        bound.encode(bound.place(bound.embed(image)), False)
