"""Colorization: only lightness is seen, cells' colours, the loss, the running prior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from skimage import color

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import colorization
from vit_ssl_jax.ops import lab

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def method(tiny):
    """Classification, two by two cells in patches of 4 px."""
    return tiny.method("colorization")


@pytest.fixture(scope="module")
def regression(tiny):
    """Regression of every pixel."""
    return tiny.method("colorization", form="regression", patch_cells=4)


@pytest.fixture(scope="module")
def batch(tiny):
    """Four images, the last grey."""
    image = tiny.batch(4)["image"]
    image[-1] = image[-1].mean(-1, keepdims=True)
    return {"image": jnp.asarray(image)}


@pytest.fixture(scope="module")
def views(method, batch):
    """Their views."""
    return jax.jit(method.make_views)(KEY, batch)


@pytest.fixture(scope="module")
def targets(method, views):
    """Their targets at the first step."""
    return jax.jit(method.make_targets)(method.init_ema({}), views, 0)


def lab_images(lightness, ab, size=(32, 32)):
    """A batch of one image of one colour: sRGB in [0, 1]."""
    rgb = lab.lab_to_rgb(jnp.float32([lightness, *ab]))
    return {"image": jnp.broadcast_to(rgb, (1, *size, 3))}


def test_views_hold_lightness_and_the_mean_chroma_of_cells(tiny, views, batch):
    true = color.rgb2lab(np.float64(batch["image"]))
    for channel in range(3):
        grey = views["image"][..., channel] * tiny.std[channel] + tiny.mean[channel]
        np.testing.assert_allclose(100 * grey, true[..., 0], atol=1e-3)
    assert views["ab"].shape == (4, 64, 4, 2)
    for b, row, col, i, j in [(0, 0, 0, 0, 1), (1, 0, 5, 1, 0), (2, 7, 3, 1, 1)]:
        top, left = 4 * row + 2 * i, 4 * col + 2 * j
        mean = true[b, top : top + 2, left : left + 2, 1:].mean((0, 1))
        out = views["ab"][b, 8 * row + col, 2 * i + j]
        np.testing.assert_allclose(out, mean, atol=1e-3)


def test_views_do_not_depend_on_the_key(method, batch, views):
    again = jax.jit(method.make_views)(jax.random.key(7), batch)
    jax.tree.map(np.testing.assert_array_equal, again, views)


def test_an_image_is_grey_unless_some_chroma_is_above_five(method, views):
    np.testing.assert_array_equal(views["coloured"], [True, True, True, False])
    dull = lab_images(50, (4.5, -4.5))["image"]
    bright = dull.at[0, 3, 3].set(lab_images(50, (0, -5.5))["image"][0, 0, 0])
    image = jnp.concatenate([dull, bright, dull, dull])
    out = jax.jit(method.make_views)(KEY, {"image": image})
    np.testing.assert_array_equal(out["coloured"], [False, True, False, False])


def test_chroma_does_not_change_what_the_model_sees(method):
    view = jax.jit(method.make_views)
    one, other = (view(KEY, lab_images(60, ab)) for ab in [(30, 20), (-25, 35)])
    np.testing.assert_allclose(one["image"], other["image"], atol=1e-4)
    assert np.abs(one["ab"] - other["ab"]).min() > 10
    lighter = view(KEY, lab_images(61, (30, 20)))["image"]
    assert np.all(lighter > one["image"] + 0.01)


@pytest.mark.parametrize("name", ["method", "regression"])
def test_the_prediction_comes_from_the_image_alone(request, batch, name):
    method = request.getfixturevalue(name)
    views = jax.jit(method.make_views)(KEY, batch)
    params = jax.jit(lambda key: method.model.init(key, views, False))(KEY)

    def prediction(views):
        return jnp.sum(jnp.sin(method.model.apply(params, views, False)))

    floats = {k: v for k, v in views.items() if v.dtype == jnp.float32}
    rest = {k: v for k, v in views.items() if k not in floats}
    gradient = jax.jit(jax.grad(lambda x: prediction(x | rest)))(floats)
    assert np.all(np.abs(gradient.pop("image")).max((1, 2, 3)) > 0)
    assert all(np.all(x == 0) for x in gradient.values()) and "ab" in gradient
    out = jax.eval_shape(lambda: method.model.apply(params, views, False))
    assert out.dtype == jnp.float32
    assert out.shape[2:] == {"method": (4, 261), "regression": (16, 2)}[name]


def test_the_prior_counts_the_whole_batch(views, targets, method):
    far = np.square(np.asarray(views["ab"])[..., None, :] - lab.bins()).sum(-1)
    nearest = far.argmin(-1).reshape(4, -1)
    assert targets["histogram"].shape == (4, 261)
    for row, ids in zip(targets["histogram"], nearest):
        expected = np.bincount(ids, minlength=261) / ids.size
        np.testing.assert_allclose(row, expected, atol=1e-6)
    counts = np.bincount(nearest.ravel(), minlength=261)
    prior = method.update_ema(method.init_ema({}), {}, targets, 0)["prior"]
    np.testing.assert_allclose(prior, counts / counts.sum(), atol=1e-6)


def test_targets_are_shares_of_the_nearest_bins(views, targets):
    assert targets["ids"].shape == targets["weights"].shape == (4, 64, 4, 10)
    far = np.square(np.asarray(views["ab"])[..., None, :] - lab.bins()).sum(-1)
    np.testing.assert_array_equal(targets["ids"][..., 0], far.argmin(-1))
    np.testing.assert_allclose(targets["weights"].sum(-1), 1, atol=1e-6)
    # No colour is rare yet: but for the edge of the gamut all weigh the same.
    np.testing.assert_allclose(targets["balance"], 1, atol=0.01)


def test_the_prior_is_a_running_mean_up_to_its_horizon():
    update = functools.partial(colorization.update_ema, horizon=3)
    ema, history = {"prior": jnp.full(2, 0.5)}, [(1, 0), (0, 1), (0, 1), (1, 0)]
    expected = [(1, 0), (1 / 2, 1 / 2), (1 / 3, 2 / 3), (5 / 9, 4 / 9)]
    for step, (seen, prior) in enumerate(zip(history, expected)):
        targets = {"histogram": jnp.float32([seen, seen])}
        ema = update(ema, {}, targets, jnp.int32(step))
        np.testing.assert_allclose(ema["prior"], prior, rtol=1e-6)


def test_rare_colours_weigh_more(method, views):
    """Against the formulas of section 2.2, in numpy."""
    prior = np.random.default_rng(0).dirichlet(np.full(261, 0.1)).astype(np.float32)
    out = method.make_targets({"prior": jnp.asarray(prior)}, views, 0)
    apart = np.square(lab.bins()[:, None] - lab.bins()).sum(-1)
    kernel = np.exp(-apart / 50)
    smooth = prior @ (kernel / kernel.sum(1, keepdims=True))
    weights = 1 / (0.5 * smooth + 0.5 / 261)
    weights /= prior @ weights  # as counted, so that the loss keeps its size
    expected = weights[np.asarray(out["ids"][..., 0])]
    np.testing.assert_allclose(out["balance"], expected, rtol=1e-4)
    assert out["balance"].max() > 3 * out["balance"].min()


def test_without_rebalancing_all_weights_are_one(tiny, views):
    method = tiny.method("colorization", rebalance=1.0)
    prior = np.random.default_rng(0).dirichlet(np.full(261, 0.1))
    out = method.make_targets({"prior": jnp.float32(prior)}, views, 0)
    np.testing.assert_allclose(out["balance"], 1, rtol=1e-5)


def test_cross_entropy_worked_by_hand():
    logits = jnp.log(jnp.float32([[[[4, 2, 1, 1]]]]))  # shares 1/2, 1/4, 1/8, 1/8
    targets = {
        "ids": jnp.array([[[[0, 2]]]]),
        "weights": jnp.float32([[[[0.75, 0.25]]]]),
        "balance": jnp.float32([[[2.0]]]),
    }
    out = colorization.cross_entropy(logits, targets)
    # 2 (3/4 log 2 + 1/4 log 8) = 3 log 2
    np.testing.assert_allclose(out, [[[3 * np.log(2)]]], rtol=1e-6)


def dense(targets):
    """Shares of all bins `[B N C Q]` from those of the nearest."""
    shares = np.zeros((*targets["ids"].shape[:-1], 261), np.float32)
    np.put_along_axis(shares, np.asarray(targets["ids"]), targets["weights"], -1)
    return shares


def test_loss_and_gradient_are_those_of_all_bins(method, targets):
    """Mean over every cell; the weight multiplies the gradient, a grey image has none."""
    rng = np.random.default_rng(0)
    balance = jnp.float32(rng.uniform(0.5, 2, targets["balance"].shape))
    targets = targets | {"balance": balance}
    logits = jnp.float32(rng.normal(size=(4, 64, 4, 261)))
    loss, gradient = jax.value_and_grad(lambda x: method.loss_fn(x, targets)[0])(logits)
    errors = optax.softmax_cross_entropy(logits, dense(targets)) * balance
    cells = 4 * 64 * 4
    assert loss == pytest.approx(float(errors[:3].sum()) / cells, rel=1e-5)
    expected = balance[..., None] * (jax.nn.softmax(logits) - dense(targets)) / cells
    np.testing.assert_allclose(gradient[:3], expected[:3], atol=1e-8)
    assert np.all(gradient[3] == 0)


def test_metrics_of_a_prediction_of_one_bin(method, targets):
    wrong = (targets["ids"][..., 0] + 1) % 261
    right = jnp.where(jnp.arange(64)[None, :, None] < 48, targets["ids"][..., 0], wrong)
    logits = 100 * jax.nn.one_hot(right, 261)
    _, metrics = method.loss_fn(logits, targets)
    assert metrics["top1"] == 0.75
    apart = np.linalg.norm(lab.bins()[right] - targets["ab"], axis=-1)
    assert metrics["ab_error"] == pytest.approx(apart.mean(), rel=1e-5)


def test_regression_worked_by_hand(regression):
    targets = {
        "ab": jnp.float32([[[[11, -22], [0, 0]]], [[[55, 55], [33, 0]]]]),
        "coloured": jnp.array([True, False]),
    }
    outputs = jnp.float32([[[[0.1, 0.0], [0.3, -0.1]]], [[[0, 0], [0, 0]]]])
    loss, metrics = regression.loss_fn(outputs, targets)
    # Cells: (0 + 0.04) / 2, (0.09 + 0.01) / 2; two of a grey image.
    assert loss == pytest.approx((0.02 + 0.05) / 4, rel=1e-5)
    apart = [22, 110 * np.hypot(0.3, 0.1), np.hypot(55, 55), 33]
    assert metrics["ab_error"] == pytest.approx(np.mean(apart), rel=1e-5)
    assert "top1" not in metrics


def test_regression_keeps_no_prior(regression, batch):
    views = regression.make_views(KEY, batch)
    targets = regression.make_targets({}, views, 0)
    assert regression.init_ema({}) == {} and "histogram" not in targets
    assert views["ab"].shape == (4, 64, 16, 2)


def test_a_perfect_prediction_is_drawn_as_the_image(regression, batch):
    views = regression.make_views(KEY, batch)
    targets = regression.make_targets({}, views, 0)
    out = regression.draw(targets["ab"] / 110, targets, views)
    np.testing.assert_allclose(out["predicted colours"], batch["image"], atol=1e-3)
    np.testing.assert_allclose(
        out["true colours of the cells"], batch["image"], atol=1e-3
    )
    lightness = color.rgb2lab(np.float64(batch["image"]))[..., 0]
    values = color.rgb2lab(np.float64(out["lightness, all that is seen"]))
    np.testing.assert_allclose(values[..., 0], lightness, atol=1e-2)
    assert np.abs(values[..., 1:]).max() < 0.1


def test_the_likeliest_bin_is_drawn(method):
    views = method.make_views(KEY, lab_images(60, (30, 20)))
    targets = method.make_targets(method.init_ema({}), views, 0)
    out = method.draw(50 * jax.nn.one_hot(targets["ids"][..., 0], 261), targets, views)
    expected = lab_images(60, (30, 20))["image"]
    np.testing.assert_allclose(out["predicted colours"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("form", "gan"),
        ("patch_cells", 3),
        ("patch_cells", 0),
        ("neighbours", 0),
        ("neighbours", 262),
        ("sigma", 0.0),
        ("rebalance", 0.0),
        ("rebalance", 1.5),
        ("prior_horizon", 0),
        ("temperature", 0.0),
    ],
)
def test_a_value_that_cannot_work_is_refused(tiny, key, value):
    with pytest.raises(UserError, match=f"config.method.{key}: '?{value}"):
        tiny.method("colorization", **{key: value})
