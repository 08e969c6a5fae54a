"""MaskFeat: what it may see, its targets, its loss. The rest is in the ledger."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import maskfeat
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import hog, images, patches

VIT = {"variant": "1x16x2/8", "posemb": "learned", "cls": True, "init": "slowfast"}
SIZE = (32, 48)  # a grid of 4 x 6


@pytest.fixture(scope="module")
def method(tiny):
    return tiny.method("maskfeat", SIZE, VIT)


@pytest.fixture(scope="module")
def views(tiny, method):
    return method.make_views(jax.random.key(0), tiny.batch(3, SIZE))


@pytest.fixture(scope="module")
def params(tiny, method, views):
    shapes = jax.eval_shape(
        lambda key: method.model.init(key, views, False)["params"], jax.random.key(0)
    )
    return tiny.random(shapes)


def test_views(tiny, method, views):
    assert views["hide"].shape == (3, 24) and views["hide"].dtype == bool
    assert np.all(views["hide"].sum(1) == 10)  # round(24 * 0.4)
    expected = images.normalize(tiny.batch(3, SIZE)["image"], tiny.mean, tiny.std)
    np.testing.assert_array_equal(views["image"], expected)
    other = method.make_views(jax.random.key(1), tiny.batch(3, SIZE))
    assert np.any(other["hide"] != views["hide"])


@pytest.mark.parametrize("compat", ["slowfast", "mmpretrain"])
def test_views_of_the_published_code(tiny, compat):
    method = tiny.method("maskfeat", (56, 56), VIT, compat=compat)
    hide = method.make_views(jax.random.key(0), tiny.batch(64, (56, 56)))["hide"]
    count = hide.sum(1)
    assert count.max() == 20
    if compat == "slowfast":
        assert count.min() < 20
    else:
        assert count.min() == 20 and not np.any(hide.reshape(64, 7, 7)[:, -1])


def test_targets_are_the_histograms_of_every_patch(method, views):
    targets = method.make_targets({}, views, 0)
    assert targets["hog"].shape == (3, 24, 108)
    np.testing.assert_array_equal(targets["hide"], views["hide"])
    cells = hog.hog(views["image"], bins=9, cell=4, window=0)
    # Channel 2, bin 7, the lower left cell of the patch in row 1, column 4.
    feature = ((2 * 9 + 7) * 2 + 1) * 2 + 0
    expected = cells[:, 2, 7, 2 * 1 + 1, 2 * 4 + 0]
    np.testing.assert_array_equal(targets["hog"][:, 1 * 6 + 4, feature], expected)


def test_a_window_makes_another_target(tiny, method, views):
    other = tiny.method("maskfeat", SIZE, VIT, window=16)
    one, two = (m.make_targets({}, views, 0)["hog"] for m in (method, other))
    assert 0.01 < np.abs(one - two).mean() < 0.2


def test_loss_worked_by_hand():
    outputs = jnp.float32([[[1, 2], [9, 9]], [[0, 0], [3, -1]]])
    targets = jnp.float32([[[1, 0], [0, 0]], [[0, 2], [0, 0]]])
    hide = jnp.array([[True, False], [True, True]])
    loss, metrics = maskfeat.loss_fn(outputs, {"hog": targets, "hide": hide})
    assert loss == pytest.approx((0 + 4 + 0 + 4 + 9 + 1) / 6) and metrics == {}
    nothing = {"hog": targets, "hide": jnp.zeros_like(hide)}
    assert maskfeat.loss_fn(outputs, nothing)[0] == 0


def test_loss_refuses_other_shapes():
    targets = {"hog": jnp.zeros((2, 3, 1)), "hide": jnp.ones((2, 3), bool)}
    with pytest.raises(AssertionError):
        maskfeat.loss_fn(jnp.zeros((2, 3, 4)), targets)


def test_hidden_pixels_have_exactly_no_gradient_into_the_prediction(
    method, params, views
):
    def prediction(image):
        out = method.model.apply({"params": params}, views | {"image": image}, False)
        return jnp.sum(jnp.sin(out))

    gradient = jax.jit(jax.grad(prediction))(views["image"])
    cells = np.asarray(patches.patchify(gradient, 8))
    assert np.all(cells[views["hide"]] == 0)
    assert np.all(np.abs(cells[~views["hide"]]).max(-1) > 0)


def test_hidden_patches_are_told_apart_by_their_positions(method, params, views):
    """They carry one token, so without positions their predictions are one."""
    out = method.model.apply({"params": params}, views, False)
    hidden = np.asarray(out[0])[views["hide"][0]]
    assert np.all(np.ptp(hidden, axis=0) > 0)
    table = params["encoder"]["posemb"]
    nowhere = params["encoder"] | {"posemb": np.zeros_like(table)}
    out = method.model.apply({"params": params | {"encoder": nowhere}}, views, False)
    hidden = np.asarray(out[0])[views["hide"][0]]
    np.testing.assert_allclose(hidden, hidden[:1].repeat(len(hidden), 0), atol=1e-5)


def test_output_is_float32_in_bfloat16(tiny, params, views):
    method = tiny.method("maskfeat", SIZE, VIT | {"dtype": "bfloat16"})
    out = method.model.apply({"params": params}, views, False)
    assert out.shape == (3, 24, 108) and out.dtype == jnp.float32


def test_fresh_head_and_mask_token(method, views):
    params = method.model.init(jax.random.key(0), views, False)["params"]
    assert params["head"]["kernel"].std() == pytest.approx(0.02, rel=0.1)
    assert params["mask_token"].std() == pytest.approx(0.02, rel=0.5)
    assert not np.any(params["head"]["bias"])


def test_published_parameter_count(tiny):
    """SlowFast's ViT-B, the sum of its state_dict."""
    changes = VIT | {"variant": "B/16"}
    method = tiny.method("maskfeat", (224, 224), changes, cell=8)
    batch = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
    views = jax.eval_shape(method.make_views, jax.random.key(0), batch)
    init = functools.partial(method.model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), views)
    assert vit.parameter_count(shapes) == 85_882_476


TRUE = "HOG of the hidden patches, true"
PREDICTED = "HOG of the hidden patches, predicted"


def test_a_perfect_prediction_is_drawn_as_the_target(method, views):
    targets = method.make_targets({}, views, 0)
    drawn = method.draw(targets["hog"], targets, views)
    assert list(drawn) == ["masked", "HOG of all patches, true", TRUE, PREDICTED]
    np.testing.assert_array_equal(drawn[PREDICTED], drawn[TRUE])
    assert drawn[TRUE].std() > 0.05
    # What is hidden is grey: the mean of the data.
    cells = np.asarray(patches.patchify(drawn["masked"], 8))[views["hide"]]
    assert np.all(np.ptp(cells.reshape(-1, 64, 3), axis=(0, 1)) < 1e-6)


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        (dict(cell=3), SIZE, r"method\.cell: cells of 3 px .* patch of 8 px"),
        (dict(cell=0), SIZE, r"method\.cell: .* 0 px"),
        (dict(window=16), (32, 40), r"method\.window: .* 16 px .* 32x40 px"),
        (dict(window=1), SIZE, r"method\.window: .* 1 px"),
        (dict(bins=1), SIZE, r"method\.bins: 1 "),
        (dict(mask_ratio=float("nan")), SIZE, r"method\.mask_ratio: nan is not"),
        (dict(mask_ratio=0.0), SIZE, r"method\.mask_ratio: 0\.0 hides 0 of 24"),
        (dict(mask_ratio=1.0), SIZE, r"method\.mask_ratio: 1\.0 hides 24 of 24"),
        (dict(compat="official"), SIZE, r"method\.compat: 'official' is not one of"),
        (
            dict(compat="mmpretrain", mask_ratio=0.7),
            SIZE,
            r"method\.compat: mmpretrain's .* hide 17 patches on a grid of 4x6",
        ),
        (
            dict(compat="slowfast"),
            (16, 8 * 64),
            r"method\.compat: SlowFast's blocks never fit on a grid of 2x64",
        ),
    ],
)
def test_bad_values_are_refused(tiny, changes, size, said):
    with pytest.raises(UserError, match=said):
        tiny.method("maskfeat", size, VIT, **changes)
