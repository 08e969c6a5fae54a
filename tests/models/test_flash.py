"""Blocks compiled for a GPU that isn't there: cuDNN takes their attention, or why not."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.models import attention, layers, stack
from vit_ssl_jax.plan import cards

pytest.importorskip("jax_cuda13_plugin")
pytestmark = pytest.mark.usefixtures("users_compiler")
BATCH = 8


def make_mesh(card):
    """A mesh of two cards."""
    sizes = dict(data=1, fsdp=2, tensor=1)
    return partition.make_mesh(sizes, cards.get_devices(cards.CARDS[card], 1, 2))


@pytest.fixture(scope="module")
def mesh():
    """Of two cards."""
    return make_mesh("h100")


def lower(mesh, tokens, heads=4, head=64, valid=None, depth=2, **style):
    """The gradient of blocks over images of so many tokens, for that mesh."""
    style = dict(dtype="bfloat16", norm_eps=1e-6, gelu="tanh", init="timm") | style
    style = layers.Style(**dict(remat="dots", unroll=1) | style)
    width = heads * head
    blocks = stack.Blocks(depth, heads, 4 * width, style)

    def loss(params, x, valid):
        out, _ = blocks.apply({"params": params}, x, True, valid)
        return jnp.sum(out)

    images = partition.batch_sharding(mesh)
    x = jax.ShapeDtypeStruct((BATCH, tokens, width), jnp.float32, sharding=images)
    if valid is not None:
        valid = jax.ShapeDtypeStruct(*valid, sharding=images)
    key = jax.eval_shape(lambda: jax.random.key(0))  # nothing runs on that mesh
    with jax.set_mesh(mesh):
        init = functools.partial(blocks.init, train=False)
        params = jax.eval_shape(init, key, x)["params"]
        return jax.jit(jax.grad(loss)).lower(params, x, valid)


def read(lowered):
    """Calls of cuDNN's attention in the compiled program, and its temporaries in bytes."""
    compiled = lowered.compile(compiler_options=cards.OPTIONS)
    calls = compiled.as_text().count('custom_call_target="__cudnn$fmha')
    return calls, compiled.memory_analysis().temp_size_in_bytes


LENGTHS, MASK = ((BATCH,), jnp.int32), (lambda tokens: ((BATCH, tokens), jnp.bool_))


@pytest.mark.parametrize(
    ("tokens", "valid"),
    [
        pytest.param(97, LENGTHS, marks=pytest.mark.slow),
        (133, MASK(133)),
    ],
)
def test_every_case_is_cudnn_s_and_keeps_no_scores(mesh, tokens, valid):
    """Forward, forward again for the way back, and the way back: three calls.

    Without either, every method's step is compiled in tests/compiled.
    """
    calls, temporaries = read(lower(mesh, tokens, valid=valid))
    none, plain = read(lower(mesh, tokens, valid=valid, kernels="plain"))
    assert (calls, none) == (3, 0)
    assert temporaries < plain


@pytest.mark.slow
def test_older_cards_take_it_too():
    assert read(lower(make_mesh("a100-80"), 133, valid=MASK(133)))[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("heads, head", [(12, 32), (16, 24), (16, 80), (16, 104)])
def test_widths_of_heads_of_every_vit_are_taken(mesh, heads, head):
    """MAE's decoder, I-JEPA's predictor of ViT-H, ViT-H, ViT-G."""
    assert read(lower(mesh, 50, heads, head))[0] == 3


@pytest.mark.slow
def test_what_cudnn_does_not_take_is_plain(mesh):
    assert read(lower(mesh, 50, dtype="float32"))[0] == 0
    assert read(lower(mesh, 50, heads=2, head=36))[0] == 0


def test_odd_tokens_as_they_are_would_fail(mesh, monkeypatch):
    """What `arrange` is for: without it jax refuses."""
    monkeypatch.setattr(attention, "arrange", lambda x, valid: (x, None, lambda y: y))
    with pytest.raises(NotImplementedError, match="Unsupported sequence length Q 197"):
        lower(mesh, 197)


def test_a_mask_of_keys_would_fail(mesh, monkeypatch):
    """What lengths are for: a mask `[B 1 1 N]` jax takes for a bias, and refuses."""

    def masked(q, k, v, lengths):
        lengths = jnp.full(BATCH, 96) if lengths is None else lengths  # in init
        mask = jnp.arange(q.shape[1])[None] < lengths[:, None]
        return jax.nn.dot_product_attention(
            q, k, v, mask=mask[:, None, None], implementation="cudnn"
        )

    monkeypatch.setattr(attention, "by_cudnn", masked)
    with pytest.raises(ValueError, match="Bias must have same seq length as QKV"):
        lower(mesh, 96, valid=LENGTHS)
