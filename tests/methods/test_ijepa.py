"""I-JEPA against the published test vector, and what it may see."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_ssl_jax import optim
from vit_ssl_jax.ops import patches

PREDICTOR = {"predictor_width": 8, "predictor_depth": 1, "predictor_heads": 2}


@pytest.fixture(scope="module")
def method(tiny):
    """The model of the vector: 32 px in patches of 8, encoder 16/2/2, predictor 8/1/2."""
    numbers = {"min_keep": 3, "ema_start": 0.9, "ema_end": 0.9, **PREDICTOR}
    return tiny.method("ijepa", (32, 32), {"variant": "2x16x2/8"}, **numbers)


@pytest.fixture(scope="module")
def params(torch_weights):
    """Its weights, by the rule of the vector."""
    t = torch_weights
    shapes = t.with_bias({"patch_embed.proj": (16, 3, 8, 8)})
    shapes |= t.block_shapes("blocks.0", 16) | t.block_shapes("blocks.1", 16)
    sd = t.fill(shapes | t.with_bias({"norm": (16,)}))
    shapes = {"mask_token": (1, 1, 8), **t.with_bias({"embed": (8, 16)})}
    shapes |= t.block_shapes("blocks.0", 8)
    predictor = t.fill(shapes | t.with_bias({"norm": (8,), "proj": (16, 8)}))
    return {
        "encoder": {
            "patch": t.dense(sd, "patch_embed.proj"),
            "blocks": t.blocks(sd, "blocks", heads=2, depth=2),
            "norm": t.norm(sd, "norm"),
        },
        "predictor": {
            "mask_token": predictor["mask_token"],
            "embed": t.dense(predictor, "embed"),
            "blocks": t.blocks(predictor, "blocks", heads=2, depth=1),
            "norm": t.norm(predictor, "norm"),
            "head": t.dense(predictor, "proj"),
        },
    }


@pytest.fixture(scope="module")
def views():
    """The vector's image, one context and two targets an image."""
    image = np.sin(0.01 * np.arange(6144)).reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
    context = jnp.int32([[[0, 1, 4, 8]], [[0, 2, 3, 8]]])
    target = jnp.int32([[[5, 6, 9, 10], [1, 2, 5, 6]], [[5, 6, 9, 10], [4, 5, 8, 9]]])
    return {
        "image": jnp.float32(image),
        "context": context,
        "context_valid": jnp.ones(context.shape, bool),
        "target": target,
        "target_valid": jnp.ones(target.shape, bool),
        "dropped": jnp.zeros((2, 1), jnp.int32),
        "overlap": jnp.zeros((2, 1), bool),
    }


@pytest.fixture(scope="module")
def forward(method):
    """Jitted `(params, views) -> outputs, targets, loss`, the teacher a copy."""

    @jax.jit
    def forward(params, views):
        outputs = method.model.apply({"params": params}, views, False)
        targets = method.make_targets(method.init_ema(params), views, 0)
        return outputs, targets, method.loss_fn(outputs, targets)[0]

    return forward


def test_encoder(method, params, views):
    encoder = method.model.encoder
    out = encoder.apply({"params": params["encoder"]}, views["image"], False)
    expected = [-0.24104458, -0.35816464, 0.54502128, 0.57663394]
    np.testing.assert_allclose(out[0, 0, :4], expected, atol=1e-5)
    assert out.sum(dtype=float) == pytest.approx(-36.84339566, abs=1e-4)


def test_targets_prediction_and_loss(forward, params, views):
    outputs, targets, loss = forward(params, views)
    features = targets[
        "features"
    ]  # [B T M D]; the reference's rows are (target, image)
    expected = [1.52654385, 0.87822616, 0.52948217, -0.64151012]
    np.testing.assert_allclose(features[0, 0, 0, :4], expected, atol=1e-5)
    expected = [0.39264695, -0.25454845, 0.56448956, 0.08018493]
    np.testing.assert_allclose(outputs[0, 0, 0, 0, :4], expected, atol=1e-5)
    last = [0.26275867, -0.00593522]
    np.testing.assert_allclose(outputs[1, 1, 0, 3, :2], last, atol=1e-5)
    assert loss == pytest.approx(0.4699555684, rel=2e-6)
    squares = np.square(outputs[:, :, 0] - features)
    assert squares.mean() == pytest.approx(1.0694836059, rel=5e-6)


def test_targets_have_mean_0_and_variance_1(forward, params, views):
    features = forward(params, views)[1]["features"]
    np.testing.assert_allclose(features.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(features.var(-1), 1, atol=1e-3)


def test_training(method, params, views):
    constant = {"learning_rate": lambda step: 1e-3, "weight_decay": lambda step: 0.04}
    names = ("bias", "scale")
    tx = optim.adamw(**constant, b1=0.9, b2=0.999, eps=1e-8, no_decay=names)

    @jax.jit
    def train(params, state, ema, step):
        targets = method.make_targets(ema, views, 0)

        def loss_fn(params):
            outputs = method.model.apply({"params": params}, views, True)
            return method.loss_fn(outputs, targets)[0]

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params, step=step)
        params = optax.apply_updates(params, updates)
        ema = method.update_ema(ema, params, targets, step)
        norms = {name: optax.tree.norm(grads[name]) for name in grads}
        return params, state, ema, loss, norms

    state, ema, losses = tx.init(params), method.init_ema(params), []
    for step in range(4):
        params, state, ema, loss, norms = train(params, state, ema, step)
        losses.append(float(loss))
        if step == 0:
            assert norms["encoder"] == pytest.approx(0.0047688982, rel=1e-4)
            assert norms["predictor"] == pytest.approx(0.4885870845, rel=1e-5)
    expected = [0.4699555685, 0.4639957493, 0.4582425211, 0.4523980421]
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    bias = [0.13724301, 0.17439604, 0.19604189]
    np.testing.assert_allclose(ema["encoder"]["norm"]["bias"][:3], bias, atol=1e-6)


def padded(views, name, width):
    """Adds tokens that aren't valid."""
    extra = ((0, 0), (0, 0), (0, width))
    ids = jnp.pad(views[name], extra, constant_values=15)
    return {name: ids, f"{name}_valid": jnp.pad(views[f"{name}_valid"], extra)}


def test_padding_changes_neither_prediction_nor_loss(forward, params, views):
    outputs, _, loss = forward(params, views)
    more = views | padded(views, "context", 3) | padded(views, "target", 2)
    longer, _, same = forward(params, more)
    assert longer.shape[3] == outputs.shape[3] + 2
    np.testing.assert_allclose(longer[:, :, :, :4], outputs, atol=1e-5)
    assert same == pytest.approx(float(loss), rel=1e-6)


def test_pixels_outside_the_context_have_exactly_no_gradient(method, params, views):
    valid = views["context_valid"].at[:, :, -1].set(False)

    def prediction(image):
        seen = views | {"image": image, "context_valid": valid}
        return jnp.sum(jnp.sin(method.model.apply({"params": params}, seen, False)))

    gradient = patches.patchify(jax.jit(jax.grad(prediction))(views["image"]), 8)
    size = np.abs(gradient).max(-1)
    for row in range(2):
        context = np.asarray(views["context"][row, 0, :-1])
        assert np.all(size[row, context] > 0)
        assert np.all(np.delete(size[row], context) == 0)


def test_one_target_block_never_sees_another(forward, params, views):
    outputs = forward(params, views)[0]
    other = views | {"target": views["target"].at[:, 1].set(jnp.int32([0, 3, 7, 15]))}
    changed = forward(params, other)[0]
    np.testing.assert_array_equal(changed[:, 0], outputs[:, 0])
    assert np.abs(changed[:, 1] - outputs[:, 1]).max() > 1e-3
