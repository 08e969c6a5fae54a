"""Supervised training: smooth labels, pooling, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import supervised


def shown(label, share=1.0):
    """Views of images with these labels, each mixed with its mirror image's."""
    label = jnp.asarray(label)
    return {
        "label": label,
        "partner": label[::-1],
        "share": jnp.full(len(label), share, jnp.float32),
    }


def test_smooth_labels_in_closed_form():
    targets = supervised.make_targets(
        {}, shown([2, 0]), 0, num_classes=4, label_smoothing=0.1
    )
    expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)


def test_mixed_labels_are_those_of_timm():
    """on = 1 - s + s / C, off = s / C: 0.9001 and 0.0001 of 1,000 classes."""
    targets = supervised.make_targets(
        {}, shown([7, 3], share=0.7), 0, num_classes=1000, label_smoothing=0.1
    )
    targets = np.asarray(targets)
    on, off = 0.9001, 0.0001
    np.testing.assert_allclose(targets[0, 7], 0.7 * on + 0.3 * off, rtol=1e-5)
    np.testing.assert_allclose(targets[0, 3], 0.3 * on + 0.7 * off, rtol=1e-5)
    np.testing.assert_allclose(targets[1, 3], targets[0, 7], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-5)
    others = np.delete(targets, [3, 7], axis=1)
    np.testing.assert_allclose(others, off, rtol=1e-5)
    logits = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss, _ = supervised.loss_fn(jnp.asarray(logits), targets, loss="softmax")
    assert loss == pytest.approx(-(targets * log).sum(-1).mean(), rel=1e-5)


MIXED = dict(mixup=0.8, cutmix=1.0, erase=0.25)


def test_training_views_are_erased_then_mixed(tiny):
    """So an image is its share of pixels that were erased before."""
    method, batch = tiny.method("supervised", **MIXED), tiny.batch(8)
    views = method.make_views(jax.random.key(3), batch)
    np.testing.assert_array_equal(views["partner"], batch["label"][::-1])
    assert 0 < views["share"][0] < 1
    plain = tiny.method("supervised").make_views(jax.random.key(0), batch)
    assert np.all(plain["share"] == 1)
    mirrored = plain["image"][::-1]
    share = views["share"][:, None, None, None]
    mixed = share * plain["image"] + (1 - share) * mirrored
    pasted = (views["image"] == plain["image"]) | (views["image"] == mirrored)
    as_told = np.isclose(views["image"], mixed, atol=1e-5) | pasted
    assert 0.7 < as_told.mean() < 1  # the rest was erased


def test_top1_of_a_mixed_image_is_that_of_its_larger_part():
    targets = supervised.make_targets(
        {}, shown([0, 1], share=0.3), 0, num_classes=3, label_smoothing=0.1
    )
    outputs = jnp.float32([[0, 5, 1], [0, 5, 1]])
    _, metrics = supervised.loss_fn(outputs, targets, loss="softmax")
    assert metrics["top1"] == 0.5  # image 0 is mostly class 1, image 1 class 0


def test_averaged_weights_follow_by_the_published_rule(tiny):
    """d ema + (1 - d) params after every update, under the names of the parameters."""
    method = tiny.method("supervised", ema=0.9)
    params = {"encoder": {"x": jnp.float32([1.0, 2.0])}, "head": jnp.float32([3.0])}
    ema = method.init_ema(params)
    expected = jax.tree.map(np.asarray, params)
    for step in range(3):
        params = jax.tree.map(lambda x: x + 1.0, params)
        ema = method.update_ema(ema, params, None, step)
        expected = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, expected, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ema, expected
    )
    still = method.update_ema(params, params, None, 0)
    jax.tree.map(np.testing.assert_array_equal, still, params)
    assert tiny.method("supervised").init_ema(params) == {}


@pytest.mark.parametrize("std", [0.0, 2e-5, 0.5])
def test_the_classifier_starts_at_its_deviation(tiny, std):
    method = tiny.method("supervised", head_std=std)
    views = tiny.method("supervised").make_views(jax.random.key(0), tiny.batch(2))
    params = method.model.init(jax.random.key(0), views, False)["params"]
    assert params["head"]["kernel"].std() == pytest.approx(std, rel=0.15)


@pytest.mark.parametrize(
    ("name", "smoothing", "expected"),
    [
        ("softmax", 0.1, 0.3365127),
        ("softmax", 0.0, np.log(1 + np.e**-2 + np.e**-3)),
        ("sigmoid", 0.0, 1.1333369),
    ],
)
def test_loss_is_the_published_one(name, smoothing, expected):
    targets = supervised.make_targets(
        {}, shown([0]), 0, num_classes=3, label_smoothing=smoothing
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
    views = method.make_views(jax.random.key(0), tiny.batch(2))
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
    numbers = dict(pool="cls", loss="sigmoid", head_bias=-6.9, head_std=0.0)
    method = tiny.method("supervised", vit_changes=changes, **numbers)
    views = method.make_views(jax.random.key(0), tiny.batch(2))
    params = jax.jit(lambda key: method.model.init(key, views, False))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(
        method.model.apply(params, views, False), np.full((2, 10), -6.9, np.float32)
    )


def test_dropout_needs_a_key_in_training_only(tiny):
    method = tiny.method("supervised", vit_changes={"dropout": 0.5})
    views = method.make_views(jax.random.key(0), tiny.batch(2))
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
        (dict(label_smoothing=1.0), "config.method.label_smoothing: 1.0"),
        (dict(representation=-1), "config.method.representation: -1"),
        (dict(ema=1.0), "config.method.ema: 1.0"),
        (dict(mixup=-0.1), "config.method.mixup: -0.1"),
        (dict(mix_prob=1.5), "config.method.mix_prob: 1.5"),
        (dict(erase=2.0), "config.method.erase: 2.0 is not from 0 to 1"),
        (dict(head_std=-1.0), "config.method.head_std: -1.0"),
    ],
)
def test_impossible_numbers_are_refused(tiny, changes, said):
    with pytest.raises(UserError, match=said):
        tiny.method("supervised", **changes)


@pytest.mark.parametrize("pool", ["cls", "max"])
def test_impossible_pooling_is_refused(tiny, pool):
    with pytest.raises(UserError, match="config.method.pool"):
        tiny.method("supervised", pool=pool)
