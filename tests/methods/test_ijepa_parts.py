"""I-JEPA's parts: sizes, loss, teacher, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import ijepa
from vit_ssl_jax.models import vit


@pytest.fixture(scope="module")
def tokens():
    """Two images with one context and two targets of four tokens, all real."""
    return {
        "context_valid": jnp.ones((2, 1, 4), bool),
        "target_valid": jnp.ones((2, 2, 4), bool),
        "dropped": jnp.zeros((2, 1), jnp.int32),
        "overlap": jnp.zeros((2, 1), bool),
    }


# Trainable parameters of encoder and predictor, without the fixed tables.
COUNTS = {
    ("B/16", 224, 6, 12): (85_646_592, 11_238_912),
    ("L/16", 224, 12, 16): (303_098_880, 22_082_560),
    ("H/14", 224, 12, 16): (630_434_560, 22_279_424),
    ("H/16", 448, 12, 16): (630_664_960, 22_279_424),
    ("g/16", 224, 16, 16): (1_011_092_608, 29_475_712),
}


@pytest.mark.parametrize("model", COUNTS, ids=str)
def test_published_parameter_counts(tiny, model):
    variant, side, depth, heads = model
    numbers = {"predictor_width": 384, "predictor_depth": depth}
    numbers |= {"predictor_heads": heads}
    method = tiny.method("ijepa", (side, side), {"variant": variant}, **numbers)
    batch = {"image": jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)}
    views = jax.eval_shape(method.make_views, jax.random.key(0), batch)
    init = functools.partial(method.model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), views)["params"]
    counts = tuple(vit.parameter_count(shapes[n]) for n in ("encoder", "predictor"))
    assert counts == COUNTS[model]


def test_loss_is_that_of_the_valid_tokens(tokens):
    rng = np.random.default_rng(0)
    outputs = rng.normal(scale=2, size=(2, 2, 3, 4, 5)).astype(np.float32)
    features = rng.normal(size=(2, 2, 4, 5)).astype(np.float32)
    valid = np.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]]], bool)
    d = np.abs(outputs - features[:, :, None])
    errors = np.where(d < 1, 0.5 * d**2, d - 0.5)  # smooth L1
    kept = np.broadcast_to(valid[:, :, None], errors.shape[:-1])
    targets = tokens | {"features": features, "target_valid": jnp.array(valid)}
    loss, _ = ijepa.loss_fn(jnp.array(outputs), targets)
    assert loss == pytest.approx(errors[kept].mean(), rel=1e-6)
    wild = np.where(kept[..., None], outputs, 1e6).astype(np.float32)
    assert ijepa.loss_fn(jnp.array(wild), targets)[0] == loss


def test_smooth_l1_is_the_published_one(tokens):
    outputs = jnp.float32([0, 0.5, 1, 2, -3]).reshape(1, 1, 1, 5, 1)
    targets = tokens | {
        "features": jnp.zeros((1, 1, 5, 1)),
        "target_valid": jnp.ones((1, 1, 5), bool),
    }
    assert ijepa.loss_fn(outputs, targets)[0] == pytest.approx(0.925)


def test_mask_metrics_count_tokens(tokens):
    valid = jnp.array([[[1, 1, 1, 0]], [[1, 0, 0, 0]]], bool)
    metrics = ijepa.mask_metrics(tokens | {"context_valid": valid}, 1)
    assert metrics["mask/context_tokens"] == 2
    assert metrics["mask/context_valid"] == 0.5
    assert metrics["mask/target_tokens"] == 4
    assert metrics["mask/target_valid"] == 1
    # Of 4 + 2 x (4 + 4) computed tokens 2 + 2 x (2 + 4) are real.
    assert metrics["mask/valid"] == pytest.approx(14 / 20)


def test_momentum_is_the_published_schedule():
    numbers = {"start": 0.996, "end": 1.0, "steps": 187_500}
    values = {0: 0.996, 1: 0.9960000213, 93_750: 0.998, 187_500: 1.0}
    for step, value in values.items():
        teacher, student = ijepa.momentum(jnp.int32(step), **numbers)
        assert teacher == pytest.approx(value, rel=1e-7)
        assert student == pytest.approx(1 - value, rel=1e-5, abs=1e-12)


def test_momentum_stretched_beyond_the_run(tiny):
    steps = 100  # of the tiny context; 1.25 x 100 = 125
    method = tiny.method("ijepa", ema_start=0.9, ipe_scale=1.25)
    one = {"encoder": jnp.ones(())}
    zero = {"encoder": jnp.zeros(())}
    out = method.update_ema(one, zero, {}, steps)["encoder"]
    assert out == pytest.approx(0.9 + 0.1 * 100 / 125, rel=1e-6)


@pytest.mark.parametrize("step", [0, 7])
def test_momentum_1_keeps_every_bit_and_0_copies(tiny, step):
    params = {"encoder": {"a": jnp.float32([0.1, 0.7]), "b": jnp.float32([[-3.3]])}}
    student = jax.tree.map(lambda x: x + 0.1, params)
    for momentum, expected in ((1.0, params), (0.0, student)):
        method = tiny.method("ijepa", ema_start=momentum, ema_end=momentum)
        ema = method.update_ema({"encoder": params["encoder"]}, student, {}, step)
        jax.tree.map(
            np.testing.assert_array_equal, ema, {"encoder": expected["encoder"]}
        )


@pytest.mark.parametrize(
    ("changes", "vit_changes", "key"),
    [
        ({"compat": "exact"}, {}, "compat"),
        ({"predictor_heads": 3}, {}, "predictor_width"),
        ({}, {"cls": True}, "config.vit.cls"),
        ({"min_keep": 60}, {}, "min_keep"),
        ({"compat": "official", "min_keep": 20}, {}, "min_keep"),
        ({"max_context": 4}, {}, "max_context"),
    ],
)
def test_bad_values_are_refused_by_name(tiny, changes, vit_changes, key):
    with pytest.raises(UserError, match=key):
        tiny.method("ijepa", vit_changes=vit_changes, **changes)
