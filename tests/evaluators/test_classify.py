"""Accuracies of a classifier: against scikit-learn, hand-worked sets, and the mesh."""

import functools

import jax
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from vit_ssl_jax import partition, step
from vit_ssl_jax.data import imagenet, source
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import accuracy, classify


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(500, 12)), rng.integers(0, 12, 500)
    ranked = np.argsort(-scores, axis=1)[:, :5]
    found = accuracy.score(ranked, labels)
    for metric, k in (("top1", 1), ("top5", 5)):
        want = top_k_accuracy_score(labels, scores, k=k)
        assert found[metric] == pytest.approx(want)
    want = balanced_accuracy_score(labels, ranked[:, 0])
    assert found["mean_per_class"] == pytest.approx(want)


def test_any_label_of_a_set_is_right_and_empty_sets_do_not_count():
    labels = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
    ranked = np.array([[1, 0], [0, 2], [0, 1], [1, 2]])
    assert accuracy.score(ranked, labels) == {
        "top1": pytest.approx(1 / 3),  # only the first
        "top5": pytest.approx(2 / 3),  # the second's second guess
    }


def test_images_of_which_none_has_a_label_are_refused():
    with pytest.raises(UserError, match="no image of the split has any label"):
        accuracy.score(np.zeros((2, 1), int), np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("classes", "label_map", "said"),
    [
        (12, (), "the data has 12 classes, the head 10"),
        (2, (0, 1, 2), "3 entries from 0 to 2 don't fit the 2 classes"),
        (2, (0, 10), "2 entries from 0 to 10 don't fit the 2 classes"),
    ],
)
def test_labels_that_are_not_the_heads_are_refused(classes, label_map, said):
    with pytest.raises(UserError, match=said):
        classify.check_head(classes, 10, label_map)


def test_labels_that_fit_are_not_refused():
    classify.check_head(10, 10, ())
    classify.check_head(2, 10, (9, 0))


@pytest.fixture(scope="module")
def case(tiny):
    """A supervised model with averaged weights, and batches with a part that is empty."""
    method = tiny.method("supervised", ema=0.5)
    parts = {"method": method, "optimizer": tiny.optimizer()}
    init = functools.partial(step.init_state, batch=tiny.bytes(8), **parts)
    state = jax.jit(init)(jax.random.key(0))
    params = tiny.random(jax.eval_shape(lambda: state.params))
    state = state.replace(params=params, ema=tiny.random(params, seed=1))
    sizes = enumerate((8, 8, 3))
    return (
        method,
        state,
        [tiny.bytes(8, seed=i) | {"valid": np.arange(8) < n} for i, n in sizes],
    )


def test_it_is_the_models_own_answer_on_one_device_and_on_eight(case, tiny):
    method, state, batches = case
    normalize = functools.partial(
        classify.images.normalize, mean=tiny.mean, std=tiny.std
    )
    found = []
    for count in (1, 8):
        shape = {"data": -1, "fsdp": 1, "tensor": 1}
        mesh = partition.make_mesh(shape, jax.devices()[:count])
        evaluate = classify.make_evaluator(method, mesh, normalize)
        found.append(evaluate(state, batches, ()))
        assert found[-1] == evaluate(state, batches, ())  # again: the same digits
    assert found[0] == found[1]

    @jax.jit
    def logits(params, image):
        return method.model.apply({"params": params}, {"image": image}, False)

    for name, params in (("", state.params), ("ema/", state.ema)):
        right = []
        for batch in batches:
            best = logits(params, normalize(np.float32(batch["image"]) / 255)).argmax(1)
            right += (np.asarray(best) == batch["label"])[batch["valid"]].tolist()
        assert len(right) == 19
        assert found[0][f"{name}top1"] == pytest.approx(np.mean(right))
    assert found[0]["top1"] != found[0]["ema/top1"]


def test_an_image_without_a_label_is_refused(case, tiny):
    method, state, batches = case
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    evaluate = classify.make_evaluator(method, mesh, lambda image: image)
    without = [b | {"label": np.where(b["id"] == 2, -1, b["label"])} for b in batches]
    with pytest.raises(UserError, match="3 of 19 images have no label"):
        evaluate(state, without, ())


def test_a_label_map_gives_the_heads_classes(case, tiny):
    method, state, batches = case
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    normalize = functools.partial(
        classify.images.normalize, mean=tiny.mean, std=tiny.std
    )
    evaluate = classify.make_evaluator(method, mesh, normalize)
    order = np.random.default_rng(0).permutation(10)
    mapped = [b | {"label": np.argsort(order)[b["label"]]} for b in batches]
    plain = evaluate(state, batches, ())
    assert evaluate(state, mapped, tuple(order)) == plain
    assert evaluate(state, mapped, ()) != plain


def test_the_classes_of_a_part_compete_alone(case, tiny):
    """Of the head's ten classes two: the likelier of them, as numpy picks it."""
    method, state, batches = case
    mesh = partition.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    evaluate = classify.make_evaluator(method, mesh, lambda image: image)
    part = [b | {"label": b["label"] % 2} for b in batches]
    found = evaluate(state, part, (7, 2), True)

    @jax.jit
    def logits(params, image):
        return method.model.apply({"params": params}, {"image": image}, False)

    right = []
    for batch in part:
        out = logits(state.params, np.float32(batch["image"]) / 255)
        best = np.array([7, 2])[np.argmax(np.asarray(out)[:, [7, 2]], axis=1)]
        hits = best == np.array([7, 2])[batch["label"]]
        right += hits[batch["valid"]].tolist()
    assert found["top1"] == pytest.approx(np.mean(right))
    assert found["top5"] == 1.0  # of two
    assert evaluate(state, part, (7, 2))["top5"] < 1.0  # of ten


def source_of(names, no_label=-1):
    return source.Source("a set", 1, lambda i: (b"", 0), str, names, no_label)


def test_imagenets_classes_are_known_by_name():
    wnids = imagenet.wnids()
    assert len(wnids) == 1000 and wnids[0] == "n01440764"
    assert list(wnids) == sorted(wnids)
    some = wnids[107], wnids[6]
    assert classify.by_name(source_of(some), 1000) == (107, 6)
    assert classify.by_name(source_of(wnids), 1000) == ()  # the same numbers
    assert classify.by_name(source_of(some), 2) == ()  # another head
    assert classify.by_name(source_of((*some, "n00000001")), 1000) == ()
    assert classify.by_name(source_of(("cat", "dog")), 1000) == ()
    sets = source_of(wnids, np.zeros(1000, np.uint8))
    assert classify.by_name(sets, 1000) == ()
