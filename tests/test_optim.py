"""Schedules and AdamW against published numbers and the library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_ssl_jax import optim
from vit_ssl_jax.errors import UserError


def rates(optimizer, steps, name="lr"):
    """A schedule at some steps."""
    return [float(jax.jit(optimizer.schedules[name])(jnp.int32(s))) for s in steps]


def test_mae_pretraining_rate(tiny):
    epoch = 312  # steps; the rate follows the fractional epoch
    optimizer = tiny.optimizer(
        steps=1600 * epoch,
        epochs=1600,
        batch_size=4096,
        lr=1.5e-4,
        lr_batch=256,
        warmup_epochs=40,
        first_step=0,
    )
    values = {0: 0.0, 20: 0.0012, 40: 0.0024, 400: 0.00209821, 820: 0.0012}
    values |= {1200: 0.00036873}
    ours = rates(optimizer, [e * epoch for e in values])
    np.testing.assert_allclose(ours, list(values.values()), rtol=3e-6)


def test_mae_finetuning_rate(tiny):
    optimizer = tiny.optimizer(
        steps=10_000, epochs=100, lr=2e-3, lr_end=1e-6, warmup_epochs=5, first_step=0
    )
    ours = rates(optimizer, [250, 5250, 9900])
    np.testing.assert_allclose(ours, [0.001, 0.0010005, 1.54647e-6], rtol=1e-5)


IJEPA = {"lr": 1e-3, "lr_start": 2e-4, "lr_end": 1e-6, "wd": 0.04, "wd_end": 0.4}
IJEPA |= {"warmup_epochs": 40, "first_step": 1}


def test_ijepa_rate_and_decay(tiny):
    optimizer = tiny.optimizer(steps=187_500, epochs=300, **IJEPA)
    values = {1: 0.000200032, 2: 0.000200064, 25_000: 0.001, 25_001: 0.0009999999999}
    values |= {93_750: 0.000620038, 187_500: 1e-6}
    ours = rates(optimizer, [t - 1 for t in values])  # the reference counts from 1
    np.testing.assert_allclose(ours, list(values.values()), rtol=1e-6)
    values = {46_875: 0.0927208, 93_750: 0.22, 140_625: 0.3472793, 187_500: 0.4}
    ours = rates(optimizer, [t - 1 for t in values], "weight_decay")
    np.testing.assert_allclose(ours, list(values.values()), rtol=1e-6)


@pytest.mark.parametrize(("epochs", "rate"), [(300, 1.04e-4), (600, 1.002e-4)])
def test_ijepa_schedules_stretched_beyond_the_run(tiny, epochs, rate):
    steps = 625 * epochs
    numbers = {**IJEPA, "warmup_epochs": 15, "ipe_scale": 1.25}
    optimizer = tiny.optimizer(steps=steps, epochs=epochs, **numbers)
    assert rates(optimizer, [steps - 1])[0] == pytest.approx(rate, rel=3e-3)
    decay = rates(optimizer, [steps - 1], "weight_decay")[0]
    assert decay == pytest.approx(0.36562, abs=1e-5)


def test_a_shortened_run_keeps_the_shape(tiny):
    long = tiny.optimizer(steps=10_000, epochs=100, warmup_epochs=10, first_step=0)
    short = tiny.optimizer(steps=100, epochs=100, warmup_epochs=10, first_step=0)
    shares = np.arange(0, 100, 9)
    ours, theirs = rates(short, shares), rates(long, 100 * shares)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-9)


def test_rate_is_linear_in_the_batch_where_asked(tiny):
    numbers = {"warmup_epochs": 0, "first_step": 0, "lr": 2e-3}
    for batch, per, expected in [(512, 256, 4e-3), (64, 256, 5e-4), (512, 0, 2e-3)]:
        optimizer = tiny.optimizer(batch_size=batch, lr_batch=per, **numbers)
        assert rates(optimizer, [0])[0] == pytest.approx(expected, rel=1e-6)


def constant(rate, decay, no_decay=()):
    """AdamW with constant values."""
    numbers = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "no_decay": no_decay}
    return optim.adamw(lambda step: rate, lambda step: decay, **numbers)


def test_one_step_by_hand():
    params, grads = {"kernel": jnp.float32(1.0)}, {"kernel": jnp.float32(0.5)}
    tx = constant(0.1, 0.05)
    updates, _ = tx.update(grads, tx.init(params), params, step=0)
    out = optax.apply_updates(params, updates)["kernel"]
    assert out == pytest.approx(0.895, rel=1e-6)


@pytest.fixture(scope="module")
def tree(tiny):
    """A tree with a scanned block, whose bias is a matrix."""
    shapes = {
        "block": {
            "up": {"kernel": (3, 4, 5), "bias": (3, 5)},
            "norm": {"scale": (3, 4)},
        },
        "cls": (1, 1, 4),
    }
    structs = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return tiny.random(structs, seed=1), tiny.random(structs, seed=2)


def test_it_is_the_librarys_adamw(tree):
    params, grads = tree
    decayed = {
        "block": {"up": {"kernel": True, "bias": False}, "norm": {"scale": False}},
        "cls": True,
    }
    ours = constant(0.01, 0.3, no_decay=("bias", "scale"))
    theirs = optax.adamw(0.01, b1=0.9, b2=0.95, weight_decay=0.3, mask=decayed)
    a, b, state, other = params, params, ours.init(params), theirs.init(params)
    for step in range(5):
        scaled = optax.tree.scale(np.cos(step), grads)
        updates, state = ours.update(scaled, state, a, step=step)
        a = optax.apply_updates(a, updates)
        updates, other = theirs.update(scaled, other, b)
        b = optax.apply_updates(b, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_decay_goes_by_name_never_by_rank(tiny, tree):
    params, grads = tree
    still = jax.tree.map(jnp.zeros_like, grads)
    tx = tiny.optimizer(lr=0.5, wd=0.1, wd_end=0.1, warmup_epochs=0, first_step=0).tx
    updates, _ = tx.update(still, tx.init(params), params, step=jnp.int32(0))
    out = optax.apply_updates(params, updates)
    block, old = out["block"], params["block"]
    np.testing.assert_array_equal(block["up"]["bias"], old["up"]["bias"])
    np.testing.assert_array_equal(block["norm"]["scale"], old["norm"]["scale"])
    shrunk = 1 - 0.5 * 0.1
    np.testing.assert_allclose(
        block["up"]["kernel"], shrunk * old["up"]["kernel"], rtol=1e-5
    )
    np.testing.assert_allclose(out["cls"], shrunk * params["cls"], rtol=1e-5)


@pytest.mark.parametrize("clip", [0.1, 1e6])
def test_clip_limits_the_global_norm_before_the_moments(tiny, tree, clip):
    params, grads = tree
    tx = tiny.optimizer(clip=clip).tx
    _, state = tx.update(grads, tx.init(params), params, step=jnp.int32(0))
    norm = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(grads)))
    factor = min(1.0, clip / norm)
    first = jax.tree.leaves(optax.tree.get(state, "mu"))
    for moment, g in zip(first, jax.tree.leaves(grads)):
        np.testing.assert_allclose(moment, 0.1 * factor * g, rtol=1e-4, atol=1e-8)


LINEAR = {"schedule": "linear", "lr": 1.0, "lr_end": 0.2, "first_step": 0}


def test_linear_schedule(tiny):
    optimizer = tiny.optimizer(steps=100, epochs=10, warmup_epochs=2, **LINEAR)
    values = {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.6, 100: 0.2}
    ours = rates(optimizer, values)
    np.testing.assert_allclose(ours, list(values.values()), rtol=1e-6)


def test_relvit_schedule_drops_at_the_end_of_warmup(tiny):
    numbers = {"lr": 5e-4, "lr_end": 1.25e-6, "first_step": 0, "warmup_epochs": 10}
    optimizer = tiny.optimizer(
        steps=19_600, epochs=100, schedule="quarter_cosine", **numbers
    )
    before, after = rates(optimizer, [1959, 1960])
    assert before == pytest.approx(5e-4 * 1959 / 1960, rel=1e-6)
    assert after == pytest.approx(0.98772 * 5e-4, rel=1e-5)


@pytest.fixture(scope="module")
def network(tiny):
    """A method's tree, in miniature."""
    shapes = {
        "encoder": {
            "patch": {"kernel": (6, 4)},
            "cls": (1, 1, 4),
            "posemb": (1, 5, 4),
            "blocks": {"block": {"up": {"kernel": (3, 4, 5), "bias": (3, 5)}}},
            "norm": {"scale": (4,)},
        },
        "head": {"kernel": (4, 2)},
    }
    structs = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return tiny.random(structs, seed=3), tiny.random(structs, seed=4)


def test_layer_decay_slows_early_layers(tiny, network):
    """Three blocks: factors d^4 before them, d^3, d^2, d in them, 1 behind."""
    params, grads = network

    def update(decay):
        tx = tiny.optimizer(layer_decay=decay, warmup_epochs=0).tx
        return tx.update(grads, tx.init(params), params, step=jnp.int32(3))[0]

    def ratio(slow, fast):
        return np.asarray(slow) / np.asarray(fast)

    ratios = jax.tree.map(ratio, update(0.5), update(1.0))
    encoder = ratios["encoder"]
    for name in ("patch", "cls", "posemb"):
        for x in jax.tree.leaves(encoder[name]):
            np.testing.assert_allclose(x, 1 / 16, rtol=1e-5)
    for x in jax.tree.leaves(encoder["blocks"]):
        for layer, factor in enumerate((1 / 8, 1 / 4, 1 / 2)):
            np.testing.assert_allclose(x[layer], factor, rtol=1e-5)
    for x in jax.tree.leaves((encoder["norm"], ratios["head"])):
        np.testing.assert_allclose(x, 1.0, rtol=1e-5)


def test_lars_by_hand(tiny):
    """q = 0.001 |w| / |g + wd w| for the kernel; the bias is plain momentum."""
    params = {"kernel": jnp.float32([[3.0, 4.0]]), "bias": jnp.float32([1.0])}
    grads = {"kernel": jnp.float32([[0.6, 0.0]]), "bias": jnp.float32([0.5])}
    numbers = {"name": "lars", "lr": 10.0, "wd": 0.0, "b1": 0.9}
    tx = tiny.optimizer(warmup_epochs=0, first_step=0, **numbers).tx
    state = tx.init(params)
    first, state = tx.update(grads, state, params, step=jnp.int32(0))
    np.testing.assert_allclose(first["kernel"], [[-10 * 0.001 * 5.0, 0]], rtol=1e-6)
    np.testing.assert_allclose(first["bias"], [-5.0], rtol=1e-6)
    second, _ = tx.update(grads, state, params, step=jnp.int32(0))
    np.testing.assert_allclose(second["bias"], [-10 * 1.9 * 0.5], rtol=1e-6)


def test_sgd_by_hand(tiny):
    """m = 0.9 m + g + wd w, w -= rate m; the bias isn't decayed."""
    params = {"kernel": jnp.float32([2.0]), "bias": jnp.float32([1.0])}
    grads = {"kernel": jnp.float32([0.5]), "bias": jnp.float32([0.5])}
    numbers = {"name": "sgd", "lr": 0.1, "wd": 0.01, "wd_end": 0.01, "b1": 0.9}
    tx = tiny.optimizer(warmup_epochs=0, first_step=0, **numbers).tx
    state, first = tx.init(params), jnp.int32(0)
    updates, state = tx.update(grads, state, params, step=first)
    np.testing.assert_allclose(updates["kernel"], [-0.1 * 0.52], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-0.05], rtol=1e-6)
    params = optax.apply_updates(params, updates)  # 1.948, 0.95
    updates, _ = tx.update(grads, state, params, step=first)
    expected = -0.1 * (0.9 * 0.52 + 0.5 + 0.01 * 1.948)
    np.testing.assert_allclose(updates["kernel"], [expected], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], [-0.1 * 0.95], rtol=1e-6)


def test_sgd_is_the_librarys(tree):
    params, grads = tree
    ours = optim.sgd(
        lambda step: 0.1, lambda step: 0.3, momentum=0.9, no_decay=("bias", "scale")
    )
    theirs = optax.chain(
        optax.add_decayed_weights(
            0.3,
            mask={
                "block": {
                    "up": {"kernel": True, "bias": False},
                    "norm": {"scale": False},
                },
                "cls": True,
            },
        ),
        optax.sgd(0.1, momentum=0.9),
    )
    a, b, state, other = params, params, ours.init(params), theirs.init(params)
    for step in range(4):
        scaled = optax.tree.scale(np.cos(step), grads)
        updates, state = ours.update(scaled, state, a, step=step)
        a = optax.apply_updates(a, updates)
        updates, other = theirs.update(scaled, other, b)
        b = optax.apply_updates(b, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_layer_decay_works_with_every_optimiser(tiny, network, name):
    """Two steps, so that momentum is there; decay of weights is slowed, too."""
    params, grads = network

    def last(decay):
        numbers = {"wd": 0.1, "wd_end": 0.1, "warmup_epochs": 0, "first_step": 0}
        tx = tiny.optimizer(name=name, layer_decay=decay, **numbers).tx
        _, state = tx.update(grads, tx.init(params), params, step=jnp.int32(3))
        return tx.update(grads, state, params, step=jnp.int32(4))[0]

    slow, fast = last(0.5), last(1.0)
    first, *blocks, head = optim.layer_factors(0.5, 3)
    kernels = [tree["encoder"]["patch"]["kernel"] for tree in (slow, fast)]
    np.testing.assert_allclose(kernels[0], first * kernels[1], rtol=1e-5)
    kernels = [
        tree["encoder"]["blocks"]["block"]["up"]["kernel"] for tree in (slow, fast)
    ]
    for i, factor in enumerate(blocks):
        np.testing.assert_allclose(kernels[0][i], factor * kernels[1][i], rtol=1e-5)
    kernels = [tree["head"]["kernel"] for tree in (slow, fast)]
    np.testing.assert_allclose(kernels[0], head * kernels[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("decay", "depth", "published"),
    [
        (0.65, 12, [0.003697, 0.005688, 0.008751, 0.049022, 0.65, 1]),
        (0.75, 24, [0.000753, 0.001003, 0.001338, 0.023757, 0.75, 1]),
        (0.75, 32, [7.5e-5, 1.0e-4, 1.34e-4, 0.007517, 0.75, 1]),
    ],
)
def test_layer_factors_are_the_published_ones(decay, depth, published):
    factors = optim.layer_factors(decay, depth)
    assert len(factors) == depth + 2
    shown = [factors[i] for i in (0, 1, 2, depth // 2, depth, depth + 1)]
    np.testing.assert_allclose(shown, published, rtol=5e-3)


def test_the_rate_of_every_layer_is_printed():
    line = optim.describe_layers(0.5, 3, 0.08)
    assert line == (
        "peak rates by layer: embedding 0.005, blocks 0.01 0.02 0.04, head 0.08"
    )
    assert optim.layer_factors(1.0, 3) == [1, 1, 1, 1, 1]


def test_the_mask_token_belongs_to_the_first_layer():
    key = jax.tree_util.DictKey
    for path, expected in [(("mask_token",), 0.5**4), (("decoder", "mask_token"), 1.0)]:
        path = [key(name) for name in path]
        assert optim.layer_scale(path, (1, 1, 4), 0.5, 3) == expected


@pytest.mark.parametrize("key, value", [("name", "lamb"), ("schedule", "step")])
def test_other_optimisers_are_refused(tiny, key, value):
    with pytest.raises(UserError, match=f"config.optim.{key}: '{value}'"):
        tiny.optimizer(**{key: value})
