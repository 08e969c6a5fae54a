"""RelViT: its losses by hand, its heads, and what they must not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax import methods
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.methods import relvit
from vit_ssl_jax.models import vit
from vit_ssl_jax.ops import patches, relations

VIT = {"variant": "2x36x3/8", "posemb": "none", "cls": True, "init": "timm"}
TASKS = ("relations", "distances", "angles", "positions", "labels")
ALL = {task: 1.0 for task in TASKS}
OFF = {task: 0.0 for task in TASKS}
PLAIN = dict(shuffle=False, patch_augment=False, smoothing=0.0)


@pytest.fixture(scope="module")
def make(tiny):
    """A RelViT of 32 px in 4x4 patches; `changes` are keys of `config.method`."""

    def build(size=(32, 32), vit_changes=(), **changes):
        vit_changes = VIT | dict(vit_changes)
        return tiny.method("relvit", size, vit_changes, **changes)

    return build


def views_of(method, batch, seed=0):
    """Views of a batch, compiled."""
    return jax.jit(method.make_views)(jax.random.key(seed), batch)


def outputs_of(method, params, views):
    """Outputs without dropout, compiled."""
    run = jax.jit(lambda *xs: method.model.apply({"params": xs[0]}, xs[1], False))
    return run(params, views)


def random_weights(tiny, method, batch):
    """Weights, none at its initial value, and views."""
    views = views_of(method, batch)
    init = functools.partial(method.model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), views)
    return tiny.random(shapes["params"]), views


def cells_of(image, patch=8):
    return np.asarray(patches.patchify(jnp.asarray(image), patch))


def test_a_grid_need_not_be_a_square(tiny, make):
    method = make(size=(16, 32), patch_augment=False)
    params, views = random_weights(tiny, method, tiny.batch(2, (16, 32)))
    out = outputs_of(method, params, views)
    targets = method.make_targets({}, views, 0)
    assert out["distances"].shape == targets["distances"].shape == (2, 8, 8)
    expected = relations.relations(views["order"], (2, 4))
    np.testing.assert_array_equal(targets["relations"], expected)


def test_shuffling_tokens_and_labels_together_leaves_the_loss_unchanged(tiny, make):
    """Without positions the encoder can't tell; with them it can."""
    for posemb, same in (("none", True), ("learned", False)):
        method = make(vit_changes={"posemb": posemb}, **ALL, **PLAIN)
        params, views = random_weights(tiny, method, tiny.batch(2))

        @jax.jit
        def loss(views, method=method, params=params):
            out = method.model.apply({"params": params}, views, False)
            return method.loss_fn(out, method.make_targets({}, views, 0))[0]

        order = np.stack([np.random.default_rng(i).permutation(16) for i in range(2)])
        cells = np.take_along_axis(cells_of(views["image"]), order[..., None], axis=1)
        moved = views | {
            "image": patches.unpatchify(jnp.asarray(cells), 8, (4, 4)),
            "order": jnp.asarray(order),
        }
        close = float(loss(moved)) == pytest.approx(float(loss(views)), rel=1e-5)
        assert close == same, posemb


@pytest.mark.parametrize("task", TASKS)
def test_a_weight_of_zero_is_no_head_and_no_parameter(tiny, make, task):
    method = make(**OFF | {task: 2.0}, **PLAIN)
    params, views = random_weights(tiny, method, tiny.batch(2))
    name = "head" if task == "labels" else task
    assert set(params) == {"encoder", name}
    out = outputs_of(method, params, views)
    targets = method.make_targets({}, views, 0)
    assert set(out) == set(targets) == {task}
    loss, metrics = method.loss_fn(out, targets)
    assert loss == pytest.approx(2 * float(metrics[f"{task}_loss"]))


def test_the_class_of_an_image_is_read_by_the_head_of_supervised(tiny, make):
    """So a joint run's weights fit a supervised one."""
    method = make(**OFF | {"labels": 1.0}, **PLAIN)
    supervised = tiny.method("supervised", (32, 32), VIT, pool="cls")
    shapes = [random_weights(tiny, m, tiny.batch(2))[0] for m in (method, supervised)]
    shapes = [jax.tree.map(jnp.shape, tree) for tree in shapes]
    assert shapes[0] == shapes[1]


def test_the_class_token_is_added_to_patches(tiny, make):
    plain, added = (
        make(**OFF | {"positions": 1.0}, **PLAIN, add_cls=x) for x in (False, True)
    )
    params, views = random_weights(tiny, plain, tiny.batch(2))
    apply = jax.jit(lambda *xs: plain.model.encoder.apply(*xs, False))
    tokens = apply({"params": params["encoder"]}, views["image"])
    head = params["positions"]
    for method, x in (
        (plain, tokens[:, 1:]),
        (added, tokens[:, 1:] + tokens[:, :1]),
    ):
        out = outputs_of(method, params, views)["positions"]
        expected = x @ head["kernel"] + head["bias"].reshape(1, 1, -1)
        np.testing.assert_allclose(out, expected, atol=1e-5)


def test_losses_by_hand():
    """Two tokens; logits that give probabilities 1/2, 1/4, ... exactly."""
    logits = jnp.log(jnp.float32([8, 4, 2, 1, 1, 0.5, 0.5, 0.5, 0.5])) - jnp.log(18.0)
    outputs = {
        "relations": jnp.broadcast_to(logits, (1, 2, 2, 9)),
        "distances": jnp.float32([[[-1, 0], [1, -0.5]]]),
        "angles": jnp.float32([[[0, 1], [1, 0]]]),
        "positions": jnp.log(jnp.float32([[[0.75, 0.25], [0.75, 0.25]]])),
        "labels": jnp.log(jnp.float32([[0.2, 0.5, 0.3]])),
    }
    targets = relvit.make_targets(
        {},
        {"order": jnp.array([[1, 0]]), "label": jnp.array([2])},
        0,
        tasks=TASKS,
        grid=(1, 2),
    )
    # Token 0 shows the right patch: 4 is itself, 5 right of, 3 left of.
    np.testing.assert_array_equal(targets["relations"], [[[4, 5], [3, 4]]])
    np.testing.assert_array_equal(targets["distances"], [[[-1, 1], [1, -1]]])
    np.testing.assert_allclose(targets["angles"], targets["distances"])
    weights = dict(zip(TASKS, (1.0, 0.5, 2.0, 3.0, 0.25)))
    loss, metrics = relvit.loss_fn(outputs, targets, weights=weights, smoothing=0.1)
    right = np.log([1 / 18, 0.5 / 18, 1 / 18, 1 / 18])
    smooth = 0.9 * right + 0.1 * float(logits.mean())
    expected = {
        "relations": -smooth.mean(),
        "distances": (0 + 1 + 0 + 0.25) / 4,
        "angles": (1 + 0 + 0 + 1) / 4,
        "positions": -(np.log(0.25) + np.log(0.75)) / 2,
        "labels": -np.log(0.3),
    }
    for task, value in expected.items():
        assert float(metrics[f"{task}_loss"]) == pytest.approx(value, rel=1e-5), task
    total = sum(weights[task] * value for task, value in expected.items())
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert metrics["positions_top1"] == 0.5
    assert metrics["relations_top1"] == 0 and metrics["top1"] == 0


def test_accuracies_by_hand():
    scores = jax.nn.one_hot(jnp.array([[[4, 5], [4, 4]]]), 9)
    outputs = {"relations": scores, "labels": jnp.float32([[0.2, 0.2, 0.6]])}
    targets = {
        "relations": jnp.array([[[4, 5], [3, 4]]]),
        "labels": jnp.array([2]),
    }
    weights = {"relations": 1.0, "labels": 1.0}
    _, metrics = relvit.loss_fn(outputs, targets, weights=weights, smoothing=0.0)
    assert metrics["relations_top1"] == 0.75 and metrics["top1"] == 1


@pytest.mark.parametrize(
    ("variant", "size", "backbone"),
    [("S/4", 32, 21_338_496), ("S/8", 64, 21_393_792), ("S/32", 224, 22_493_952)],
)
def test_published_parameter_counts(make, variant, size, backbone):
    patch = int(variant[2:])
    tokens = (size // patch) ** 2
    changes = {"variant": variant, "posemb": "learned"}
    method = make(size=(size, size), vit_changes=changes, **ALL)
    batch = {
        "image": jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
    views = jax.eval_shape(method.make_views, jax.random.key(0), batch)
    params = jax.eval_shape(
        functools.partial(method.model.init, train=False), jax.random.key(0), views
    )["params"]
    counts = {name: vit.parameter_count(tree) for name, tree in params.items()}
    assert counts == {
        "encoder": backbone,
        "relations": 435_456 * 2 // 3,
        "distances": 442_368 * 2 // 3,
        "angles": 442_368 * 2 // 3,
        "positions": tokens * 384 + tokens,
        "head": 3850,
    }


def test_heads_start_as_torchs_linear(tiny, make):
    method = make(**ALL, **PLAIN)
    views = views_of(method, tiny.batch(1))
    init = jax.jit(functools.partial(method.model.init, train=False))
    params = init(jax.random.key(0), views)["params"]
    for x in jax.tree.leaves({k: v for k, v in params.items() if k != "encoder"}):
        assert 0.5 / 6 < np.abs(x).max() <= 1 / 6  # width 36


BAD = [
    (OFF, (), "method.relations: all weights are 0"),
    ({"angles": -1.0}, (), "method.angles: -1.0 is not a finite number"),
    ({"distances": float("nan")}, (), "method.distances: nan is not a finite number"),
    ({"smoothing": 1.0}, (), "method.smoothing: 1.0"),
    ({"compat": "paper"}, (), "method.compat: 'paper'"),
    ({"labels": 1.0}, {"cls": False}, "method.labels: .*vit.cls=True"),
    ({"add_cls": True}, {"cls": False}, "method.add_cls: .*vit.cls=True"),
    ({}, {"variant": "1x8x2/8"}, "method.relations: .* width of 8"),
    ({}, {"variant": "1x36x3/32"}, "vit.variant: a single patch"),
    ({"mega": 1}, (), "method.mega: 1 is neither"),
    ({"mega": 4}, (), "method.mega: 4 .* 4x4"),
    ({"mega": 2}, {"posemb": "learned"}, "method.mega: 2 .*posemb=none"),
    ({"compat": "official", "patch_augment": False}, (), "method.shuffle"),
    ({"shuffle": False}, {"posemb": "sincos"}, "vit.posemb: 'sincos' tells"),
]


@pytest.mark.parametrize(("changes", "vit_changes", "said"), BAD)
def test_what_cannot_work_is_refused(make, changes, vit_changes, said):
    with pytest.raises(UserError, match=said):
        make(vit_changes=vit_changes, **changes)


def test_official_cuts_need_a_square(make):
    with pytest.raises(UserError, match="method.compat: 'official' cuts"):
        make(size=(32, 40), mega=2, compat="official")


def test_classes_need_labels(make, monkeypatch):
    context = methods.Context
    monkeypatch.setattr(
        methods, "Context", lambda **numbers: context(**numbers | {"num_classes": 0})
    )
    make()
    with pytest.raises(UserError, match="method.labels: 1.0 needs labels"):
        make(labels=1.0)
