"""MAE against the published test vector, and what it may see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_ssl_jax import optim
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import mae
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import masks, patches

VIT = {"variant": "2x16x2/8", "cls": True}
PASTED = "prediction pasted in"
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.fixture(scope="module")
def method(tiny):
    """The model of the vector: 32 px in patches of 8, encoder 16/2/2, decoder 8/1/2."""
    return tiny.method("mae", (32, 32), VIT, **DECODER)


@pytest.fixture(scope="module")
def params(torch_weights):
    """Its weights, by the rule of the vector."""
    t = torch_weights
    shapes = {"cls_token": (1, 1, 16), "mask_token": (1, 1, 8)}
    shapes |= t.with_bias({"patch_embed.proj": (16, 3, 8, 8)})
    shapes |= t.block_shapes("blocks.0", 16) | t.block_shapes("blocks.1", 16)
    shapes |= t.with_bias({"norm": (16,), "decoder_embed": (8, 16)})
    shapes |= t.block_shapes("decoder_blocks.0", 8)
    shapes |= t.with_bias({"decoder_norm": (8,), "decoder_pred": (192, 8)})
    sd = t.fill(shapes)
    return {
        "encoder": {
            "cls": sd["cls_token"],
            "patch": t.dense(sd, "patch_embed.proj"),
            "blocks": t.blocks(sd, "blocks", heads=2, depth=2),
            "norm": t.norm(sd, "norm"),
        },
        "decoder": {
            "mask_token": sd["mask_token"],
            "embed": t.dense(sd, "decoder_embed"),
            "blocks": t.blocks(sd, "decoder_blocks", heads=2, depth=1),
            "norm": t.norm(sd, "decoder_norm"),
            "head": t.dense(sd, "decoder_pred"),
        },
    }


@pytest.fixture(scope="module")
def views():
    """The vector's image and noise."""
    image = np.sin(0.01 * np.arange(6144)).reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    j = np.arange(1, 17)
    noise = np.stack([0.61803398875 * j % 1, 0.41421356237 * j % 1])
    keep, hide = masks.split_by_noise(jnp.float32(noise), 4)
    return {"image": jnp.float32(image), "keep": keep, "hide": hide}


def test_latent(method, params, views):
    def latent(model, views):
        x = model.encoder.place(model.encoder.embed(views["image"]))
        return model.encoder.encode(patches.take(x, views["keep"]), False)

    out = method.model.apply({"params": params}, views, method=latent)
    assert out.shape == (2, 5, 16)
    expected = [1.17704718, 0.98901614, 0.91977506, -0.06696900]
    np.testing.assert_allclose(out[0, 0, :4], expected, atol=1e-5)


def test_prediction(method, params, views):
    def all_tokens(model, views):
        x = model.encoder.place(model.encoder.embed(views["image"]))
        latent = model.encoder.encode(patches.take(x, views["keep"]), False)
        tokens, _ = model.decoder.decode(latent, views["keep"], views["hide"], False)
        return model.decoder.head(tokens[:, 1:])

    out = method.model.apply({"params": params}, views, False)
    row_0, row_1 = (np.argsort(ids) for ids in np.asarray(views["hide"]))
    first = [0.08751108, -0.03107994, 0.37213353, -0.28078862, 0.08089431, -0.00109095]
    last = [0.07576492, 0.05676445, 0.16880489]
    assert views["hide"][0, row_0[0]] == 0 and views["hide"][1, row_1[-1]] == 15
    np.testing.assert_allclose(out[0, row_0[0], :6], first, atol=1e-5)
    np.testing.assert_allclose(out[1, row_1[-1], -3:], last, atol=1e-5)
    # The reference also predicts the visible patches.
    full = method.model.apply({"params": params}, views, method=all_tokens)
    assert full.sum(dtype=float) == pytest.approx(16.47906986, abs=1e-3)


@pytest.mark.parametrize(
    ("norm_pixels", "expected"), [(False, 0.5761119871), (True, 1.0690385478)]
)
def test_loss(tiny, params, views, norm_pixels, expected):
    method = tiny.method("mae", (32, 32), VIT, norm_pixels=norm_pixels, **DECODER)
    outputs = method.model.apply({"params": params}, views, False)
    loss, metrics = method.loss_fn(outputs, method.make_targets({}, views, 0))
    assert loss == pytest.approx(expected, rel=2e-6) and metrics == {}


def test_training(method, params, views):
    constant = {"learning_rate": lambda step: 1e-3, "weight_decay": lambda step: 0.05}
    names = ("bias", "scale")
    tx = optim.adamw(**constant, b1=0.9, b2=0.95, eps=1e-8, no_decay=names)

    def loss_fn(params):
        outputs = method.model.apply({"params": params}, views, True)
        return method.loss_fn(outputs, method.make_targets({}, views, 0))[0]

    @jax.jit
    def train(params, state):
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params, step=0)
        return optax.apply_updates(params, updates), state, loss, grads

    state, losses = tx.init(params), []
    for _ in range(4):
        params, state, *out = train(params, state)
        losses.append(out)
    losses, gradients = zip(*losses)
    first = gradients[0]
    expected = [1.0690385478, 1.0627942495, 1.0566997808, 1.0507531071]
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    assert optax.tree.norm(first) == pytest.approx(0.2043821623, rel=1e-5)
    token = [-0.04440601, -0.01057742, 0.00805321, -0.00623006]
    np.testing.assert_allclose(
        first["decoder"]["mask_token"][0, 0, :4], token, atol=1e-6
    )


# Trainable parameters, without the fixed tables.
COUNTS = {"B/16": 111_655_680, "L/16": 329_239_296, "H/14": 656_613_964}


@pytest.mark.parametrize("variant", COUNTS)
def test_published_parameter_counts(tiny, variant):
    big = {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}
    changes = {"variant": variant, "cls": True}
    method = tiny.method("mae", (224, 224), changes, **big)
    batch = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
    views = jax.eval_shape(method.make_views, jax.random.key(0), batch)
    init = functools.partial(method.model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), views)
    assert vit.parameter_count(shapes) == COUNTS[variant]


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [(196, 0.75, 49), (256, 0.75, 64), (64, 0.75, 16), (49, 0.75, 12), (784, 0.75, 196)]
    + [(1024, 0.75, 256), (196, 0.6, 78), (196, 0.9, 19), (100, 0.9, 9)]
    + [(100, 0.8, 19), (400, 0.8, 79)],  # float arithmetic, as published
)
def test_kept_tokens(tokens, ratio, kept):
    assert mae.kept_tokens(tokens, ratio) == kept


@pytest.mark.parametrize("ratio", [0.0, 0.99])
def test_a_ratio_that_hides_none_or_all_is_refused(tiny, ratio):
    with pytest.raises(UserError, match="mask_ratio"):
        tiny.method("mae", mask_ratio=ratio)


def test_a_target_is_standardised_by_the_unbiased_variance():
    image = jnp.float32([1, 2, 3, 4]).reshape(1, 2, 2, 1)
    views = {"image": image, "hide": jnp.array([[0]])}
    expected = [[[-1.1619, -0.3873, 0.3873, 1.1619]]]  # variance 5 / 3
    out = mae.make_targets({}, views, 0, patch=2, norm_pixels=True)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    out = mae.make_targets({}, views, 0, patch=2, norm_pixels=False)
    np.testing.assert_array_equal(out, [[[1, 2, 3, 4]]])


def test_loss_worked_by_hand():
    outputs = jnp.float32([[[1, 2], [0, 0]], [[3, -1], [1, 1]]])
    targets = jnp.float32([[[1, 0], [0, 2]], [[0, 0], [1, 1]]])
    loss, _ = mae.loss_fn(outputs, targets)
    assert loss == (0 + 4 + 0 + 4 + 9 + 1 + 0 + 0) / 8


def test_loss_refuses_other_shapes():
    with pytest.raises(AssertionError):
        mae.loss_fn(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 1)))


def test_targets_do_not_change_under_an_affine_change_of_pixels(method, views):
    moved = views | {"image": 3.0 * views["image"] + 5.0}
    np.testing.assert_allclose(
        method.make_targets({}, moved, 0), method.make_targets({}, views, 0), atol=1e-3
    )


def test_hidden_pixels_have_exactly_no_gradient_into_the_prediction(
    method, params, views
):
    def prediction(image):
        out = method.model.apply({"params": params}, views | {"image": image}, False)
        return jnp.sum(jnp.sin(out))

    gradient = jax.jit(jax.grad(prediction))(views["image"])
    cells = patches.patchify(gradient, 8)
    assert np.all(patches.take(cells, views["hide"]) == 0)
    assert np.all(np.abs(patches.take(cells, views["keep"])).max(-1) > 0)


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_a_perfect_prediction_is_drawn_as_the_image(tiny, norm_pixels):
    method = tiny.method("mae", norm_pixels=norm_pixels)
    batch = tiny.batch(2)
    views = method.make_views(jax.random.key(0), batch)
    targets = method.make_targets({}, views, 0)
    drawn = method.draw(targets, targets, views)
    told = mae.GIVEN * norm_pixels  # what a prediction was helped by
    names = ["masked", f"prediction{told}", f"prediction pasted in{told}"]
    assert list(drawn) == names
    np.testing.assert_allclose(drawn[names[2]], batch["image"], atol=2e-3)
    # Hidden patches are grey in the other one, visible ones are those of the image.
    cells = {k: patches.patchify(v, 4) for k, v in drawn.items()}
    ids = views["keep"], views["hide"]
    kept, hidden = (patches.take(cells["masked"], i) for i in ids)
    true = patches.take(patches.patchify(batch["image"], 4), ids[0])
    np.testing.assert_allclose(kept, true, atol=1e-5)
    grey = np.broadcast_to(np.tile(np.float32(tiny.mean), 16), hidden.shape)
    np.testing.assert_allclose(hidden, grey, atol=1e-6)
    kept, hidden = (patches.take(cells[names[1]], i) for i in ids)
    np.testing.assert_allclose(kept, grey[:, :1].repeat(kept.shape[1], 1), atol=1e-6)
    true = patches.take(patches.patchify(batch["image"], 4), ids[1])
    np.testing.assert_allclose(hidden, true, atol=2e-3)


class Knowing:
    """A model that is told the image, in the place of one that learned."""

    def apply(self, variables, views, train):
        assert variables == {"params": "weights"} and not train
        return patches.take(patches.patchify(views["image"], 4), views["hide"])


def test_more_is_hidden_than_in_training_as_in_figure_4(tiny):
    method, batch = tiny.method("mae", norm_pixels=False), tiny.batch(2)
    views = method.make_views(jax.random.key(0), batch)
    draw = functools.partial(method.draw_more.func, model=Knowing(), draw=method.draw)
    drawn = draw("weights", {}, views)
    names = [f"{r} % hidden: {n}" for r in (85, 95) for n in ("masked", PASTED)]
    assert list(drawn) == names  # 75 % are those of training
    grey, before = np.tile(np.float32(tiny.mean), 16), None
    for share, masked, pasted in ((0.85, *names[:2]), (0.95, *names[2:])):
        np.testing.assert_allclose(drawn[pasted], batch["image"], atol=1e-5)
        cells = np.asarray(patches.patchify(drawn[masked], 4))
        hidden = np.abs(cells - grey).max(-1) < 1e-5
        assert (hidden.sum(1) == 64 - int(64 * (1 - share))).all()
        assert before is None or (hidden >= before).all()
        before = hidden
