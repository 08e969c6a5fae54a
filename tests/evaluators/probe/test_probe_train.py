"""The probe: right answers, exact resuming, any mesh, what is refused."""

import functools
import itertools

import jax
import numpy as np
import pytest

from vit_ssl_jax import partition
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.evaluators import features
from vit_ssl_jax.evaluators.probe import feeds, sweep, train

NUMBERS = dict(
    readouts=((1, "mean"), (2, "mean")),
    batch_norm=(True,),
    optimizer="sgd",
    momentum=0.9,
    rates=(1e-6, 0.5),
    rate_batch=0,
    decays=(0.0,),
    schedule="cosine",
    step_epochs=1.0,
    milestones=(),
    rate_end=0.0,
    norm_group=0,
    nesterov=False,
    decay_bias=False,
    warmup_epochs=0.0,
    epochs=4.0,
    epoch_steps=0,
    batch_size=16,
    accum=1,
    augment=False,
    checkpoint_every=100,
    seed=0,
)
GOOD = "last2_mean_bn_sgd0.9_lr0.5_wd0_cosine_ep4_b16_cached_seed0"


def make(**changes):
    """A config."""
    return sweep.Config(**NUMBERS | changes)


def separable(count, seed):
    """Two readouts: the second tells three classes apart, the first is noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    told = np.eye(3)[labels] * [1.0, 1e-2, 1e2] + [0.0, 5.0, -7.0]
    told = told + 1e-4 * rng.normal(size=told.shape)
    noise = rng.normal(size=(count, 5))
    return {(1, "mean"): np.float32(noise), (2, "mean"): np.float32(told)}, labels


def devices(count):
    """A mesh of so many devices."""
    return partition.make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:count])


def train_kept(
    config, bank, select, queries, count=1, folder=None, stop_requested=(), classes=3
):
    """`probe.train` on kept features."""
    return train.train(
        config,
        feeds.cached(config, bank),
        select,
        queries,
        classes=classes,
        mesh=devices(count),
        folder=folder,
        stop_requested=stop_requested,
        say=lambda line: None,
    )


@pytest.fixture(scope="module")
def sets():
    """Bank, selection and queries; the last no multiple of anything."""
    return separable(160, 1), separable(48, 2), separable(101, 3)


@pytest.fixture(scope="module")
def result(sets):
    """Metrics of a whole training on one device."""
    return train_kept(make(), *sets)


def test_the_head_that_can_tell_is_found_and_named(result):
    assert result[f"{GOOD}/top1"] == result["best/top1"] == 1.0
    assert result[f"best/{GOOD}/top1"] == result[f"select/{GOOD}/top1"] == 1.0
    assert result["best/mean_per_class"] == result["best/top5"] == 1.0
    heads_of_queries = [k for k in result if k.startswith("last")]
    assert len(heads_of_queries) == 4
    noise = result[GOOD.replace("last2", "last1") + "/top1"]
    assert abs(noise - 1 / 3) < 4 * np.sqrt(2 / 9 / 101)


def test_one_device_and_eight_and_twice_give_the_same_digits(sets, result):
    assert train_kept(make(), *sets, count=8) == result
    assert train_kept(make(), *sets) == result


def test_any_class_of_a_set_is_right_and_empty_sets_do_not_count(sets, result):
    """ReaL's labels: top-1 over the images that have one; no mean per class."""
    bank, select, (found, labels) = sets
    some = np.eye(3, dtype=np.int8)[labels]
    some[::2] = 0
    got = train_kept(make(), bank, select, (found, some))
    assert got["best/top1"] == 1.0
    assert "best/mean_per_class" not in got
    name = GOOD.replace("last2", "last1") + "/top1"
    assert got[name] == pytest.approx(result[name], abs=0.2)


def test_without_a_selection_the_name_says_so(sets):
    bank, _, queries = sets
    got = train_kept(make(epochs=1.0), bank, None, queries)
    assert "best_on_queries/top1" in got
    assert not [k for k in got if k.startswith(("best/", "select/"))]
    found = {k: v for k, v in got.items() if k.startswith("last")}
    assert got["best_on_queries/top1"] == max(found.values())


class StopAfter:
    """Asks to stop before step `n + 1`."""

    def __init__(self, n):
        self._left = n

    def __bool__(self):
        self._left -= 1
        return self._left < 0


def state_of(config, bank, folder, stop_requested=()):
    """The state of `probe.fit`."""
    widths = {r: x.shape[1] for r, x in bank[0].items()}
    feed = feeds.cached(config, bank)
    steps, mesh = 40, devices(1)
    return train.fit(
        config,
        feed,
        widths=widths,
        classes=3,
        steps=steps,
        mesh=mesh,
        folder=folder,
        stop_requested=stop_requested,
        say=print,
    )


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_stopped_probe_goes_on_at_the_exact_step(sets, tmp_path, optimizer):
    config = make(optimizer=optimizer)
    whole = state_of(config, sets[0], None)
    part = state_of(config, sets[0], tmp_path, StopAfter(13))
    assert int(part.step) == 13
    rest = state_of(config, sets[0], tmp_path)
    assert int(rest.step) == 40
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(rest), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stopped_probe_has_no_result_until_it_is_done(sets, tmp_path, result):
    assert (
        train_kept(make(), *sets, folder=tmp_path, stop_requested=StopAfter(3)) is None
    )
    assert train_kept(make(), *sets, folder=tmp_path) == result
    assert train_kept(make(), *sets, folder=tmp_path, stop_requested=[2]) == result


def test_a_folder_of_another_probe_is_refused(sets, tmp_path):
    train_kept(make(), *sets, folder=tmp_path, stop_requested=StopAfter(3))
    with pytest.raises(UserError, match=r"rates: \[1e-06, 0.5\] -> \[1e-06, 0.6\]"):
        train_kept(make(rates=(1e-6, 0.6)), *sets, folder=tmp_path)


def test_a_folder_of_a_probe_on_other_images_is_refused(sets, tmp_path):
    """But how often it is saved may change."""
    config, about = make(epochs=1.0), dict(images="train", flip=True)
    train.check_folder(config, feeds.cached(config, sets[0]), tmp_path, about)
    (tmp_path / "checkpoints").mkdir()
    config = make(epochs=1.0, checkpoint_every=7)
    train.check_folder(config, feeds.cached(config, sets[0]), tmp_path, about)
    with pytest.raises(UserError, match="flip: True -> False"):
        about = about | dict(flip=False)
        train.check_folder(config, feeds.cached(config, sets[0]), tmp_path, about)


def test_an_epoch_of_kept_features_has_every_image_once(sets):
    bank = {(1, "mean"): np.arange(24.0).reshape(24, 1)}, np.arange(24)
    config = make(readouts=((1, "mean"),))
    feed = feeds.cached(config, bank)
    seen = [*itertools.islice(feed.batches(0), 6)]
    for part in seen:
        np.testing.assert_array_equal(part["features"][1, "mean"][:, 0], part["label"])
    order = np.concatenate([part["label"] for part in seen]).reshape(4, 24)
    for epoch in order:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert (order[0] != order[1]).any()
    later = next(feed.batches(5))
    np.testing.assert_array_equal(later["label"], seen[5]["label"])


@pytest.mark.parametrize("accum", [1, 2])
def test_augmented_images_go_through_the_encoder(tiny, accum):
    """In pieces, in order, on eight devices; and the heads learn from them."""
    model, mesh = tiny.vit((8, 8)), devices(8)
    zeros = np.zeros((1, 8, 8, 3), np.float32)
    init = functools.partial(model.init, train=False)
    params = tiny.random(jax.eval_shape(init, jax.random.key(0), zeros)["params"])

    def normalize(image):
        return 2.0 * image - 1.0

    def batches(start):
        for number in itertools.count(start):
            yield tiny.bytes(16, (8, 8), seed=number)

    config = make(augment=True, accum=accum, epoch_steps=3, epochs=1.0)
    feed = feeds.augmented(config, model, params, normalize, batches, 48)
    batch = next(feed.batches(1))
    with jax.set_mesh(mesh):
        on_devices = jax.device_put(batch, partition.batch_sharding(mesh))
        got = jax.jit(feed.read)(params, on_devices)
    reader = features.make_reader(model, normalize, config.readouts)
    for readout, want in jax.jit(reader)(params, batch["image"]).items():
        np.testing.assert_allclose(got[readout], want, atol=5e-6)
    queries = {r: np.asarray(x) for r, x in got.items()}, batch["label"]
    result = train.train(
        config,
        feed,
        None,
        queries,
        classes=10,
        mesh=mesh,
        folder=None,
        stop_requested=[],
        say=print,
    )
    assert (
        result[GOOD.replace("ep4", "ep1").replace("cached", "steps3_aug") + "/top1"]
        > 0.1
    )


def test_what_cannot_be_probed_is_refused(sets):
    bank, select, queries = sets
    found, labels = queries
    with pytest.raises(UserError, match="queries: 101 of 101 images have no label"):
        train_kept(make(), bank, select, (found, labels * 0 - 1))
    with pytest.raises(
        UserError, match="selection: class numbers up to 7, but .* 0 to 2"
    ):
        train_kept(make(), bank, (select[0], select[1] * 0 + 7), queries)
    with pytest.raises(UserError, match="training images: class numbers up to 2"):
        train_kept(make(), bank, None, (found, labels * 0), classes=2)
    sets_of_four = np.eye(4, dtype=np.int8)[labels]
    with pytest.raises(UserError, match="queries: class numbers up to 3"):
        train_kept(make(), bank, select, (found, sets_of_four))
    with pytest.raises(UserError, match="training images: 16 of 16 images have no"):
        train_kept(make(), (bank[0], bank[1] * 0 - 1), select, queries)
    with pytest.raises(UserError, match="batch_size: 12 doesn't divide over 8 devices"):
        train_kept(make(batch_size=12), *sets, count=8)
    with pytest.raises(UserError, match="accum=3 pieces = 3; try 15 or 18"):
        train_kept(make(augment=True, accum=3), *sets)
    with pytest.raises(UserError, match="are no step; lower batch_size"):
        train_kept(make(batch_size=512), *sets)
