"""Supervised training: smooth labels, pooling, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import supervised


def test_smooth_labels_in_closed_form():
    views = {"label": jnp.array([2, 0])}
    out = supervised.make_targets({}, views, num_classes=4, label_smoothing=0.1)
    expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "smoothing", "expected"),
    [
        ("softmax", 0.1, 0.3365127),
        ("softmax", 0.0, np.log(1 + np.e**-2 + np.e**-3)),
        ("sigmoid", 0.0, 1.1333369),
    ],
)
def test_loss_is_the_published_one(name, smoothing, expected):
    views = {"label": jnp.array([0])}
    targets = supervised.make_targets(
        {}, views, num_classes=3, label_smoothing=smoothing
    )
    loss, _ = supervised.loss_fn(jnp.float32([[2, 0, -1]]), targets, loss=name)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_top1_counts_right_answers():
    outputs = jnp.float32([[3, 1, 2], [0, 1, 5], [9, 1, 1], [0, 1, 0]])
    targets = jnp.eye(3)[jnp.array([0, 2, 1, 1])]
    _, metrics = supervised.loss_fn(outputs, targets, loss="softmax")
    assert metrics["top1"] == 0.75


def params_and_logits(tiny, pool, cls, **changes):
    """Random parameters, the logits of two images, and the encoder's tokens."""
    method = tiny.method("supervised", vit_changes={"cls": cls}, pool=pool, **changes)
    views = method.make_views(None, tiny.batch(2))
    init = functools.partial(method.model.init, train=False)
    params = tiny.random(jax.eval_shape(init, jax.random.key(0), views)["params"])
    logits = method.model.apply({"params": params}, views, False)
    encoder = {"params": params["encoder"]}
    tokens = method.model.encoder.apply(encoder, views["image"], False)
    return params, np.asarray(logits), np.asarray(tokens)


def classify(params, x):
    """The linear classifier."""
    return x @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("cls", [True, False])
def test_mean_pooling_norms_the_mean_of_the_patches(tiny, cls):
    params, logits, tokens = params_and_logits(tiny, "mean", cls)
    assert "norm" in params and "norm" not in params["encoder"]
    x = tokens[:, int(cls) :].mean(1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(logits, classify(params, x), atol=1e-5)


def test_class_token_is_pooled_after_the_final_norm(tiny):
    params, logits, tokens = params_and_logits(tiny, "cls", True)
    assert "norm" not in params and "norm" in params["encoder"]
    np.testing.assert_allclose(logits, classify(params, tokens[:, 0]), atol=1e-5)


def test_representation_layer_is_tanh_before_the_classifier(tiny):
    params, logits, tokens = params_and_logits(tiny, "cls", True, representation=8)
    layer = params["representation"]
    x = np.tanh(tokens[:, 0] @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(logits, classify(params, x), atol=1e-5)


def test_original_head_starts_at_its_bias(tiny):
    """Zero kernel: every class of every image has the same logit at first."""
    changes = {"cls": True, "init": "big_vision"}
    method = tiny.method(
        "supervised", vit_changes=changes, pool="cls", loss="sigmoid", head_bias=-6.9
    )
    views = method.make_views(None, tiny.batch(2))
    params = jax.jit(lambda key: method.model.init(key, views, False))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(
        method.model.apply(params, views, False), np.full((2, 10), -6.9, np.float32)
    )


def test_dropout_needs_a_key_in_training_only(tiny):
    method = tiny.method("supervised", vit_changes={"dropout": 0.5})
    views = method.make_views(None, tiny.batch(2))
    params = method.model.init(jax.random.key(0), views, False)

    @jax.jit
    def run(key):
        return method.model.apply(params, views, True, rngs={"dropout": key})

    one, two = run(jax.random.key(1)), run(jax.random.key(2))
    assert np.all(np.asarray(one) != np.asarray(two))
    np.testing.assert_array_equal(one, run(jax.random.key(1)))
    quiet = [method.model.apply(params, views, False) for _ in range(2)]
    np.testing.assert_array_equal(*quiet)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(loss="hinge"), "config.method.loss: 'hinge'"),
        (dict(label_smoothing=1.0), "label_smoothing=1.0"),
        (dict(representation=-1), "representation=-1"),
    ],
)
def test_impossible_numbers_are_refused(tiny, changes, said):
    with pytest.raises(UserError, match=said):
        tiny.method("supervised", **changes)


@pytest.mark.parametrize("pool", ["cls", "max"])
def test_impossible_pooling_is_refused(tiny, pool):
    with pytest.raises(UserError, match="config.method.pool"):
        tiny.method("supervised", pool=pool)
