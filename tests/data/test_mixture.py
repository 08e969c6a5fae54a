"""Mixed sets: shares by weight, every set's images once a round, any step at once."""

import collections
import itertools

import numpy as np
import pytest

from tests import runs
from vit_ssl_jax import train_data
from vit_ssl_jax.data import mixture, pipeline, whole
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError


def some(name, length, classes=()):
    """Images whose red is their number, of a set."""
    image = lambda i: np.full((8, 8, 3), i % 256, np.uint8)
    return Source(
        name, length, lambda i: (image(i), -1), lambda i: f"{name} {i}", classes
    )


def test_every_set_has_its_share_and_comes_round_whole():
    mixed = mixture.mix([some("a", 300), some("b", 700), some("c", 110)], [3, 1, 0.5])
    assert len(mixed) == 1110 and mixed.name == "a and b and c"
    order = mixture.order_of(len(mixed), mixed.parts, seed=4)
    numbers = [order[i] for i in range(mixture.BLOCK)]
    sets = collections.Counter("abc"[(i >= 300) + (i >= 1000)] for i in numbers)
    assert sets == dict(a=6667, b=2222, c=1111)
    for low, high in ((0, 300), (300, 1000), (1000, 1110)):
        mine = [i for i in numbers if low <= i < high]
        rounds = [mine[i : i + high - low] for i in range(0, len(mine), high - low)]
        assert all(sorted(r) == list(range(low, high)) for r in rounds[:-1])
        assert rounds[0] != rounds[1]
    # Near any place the shares are those of the whole.
    share = np.mean([i < 300 for i in numbers[:900]])
    assert abs(share - 2 / 3) < 5 * (2 / 9 / 900) ** 0.5


def test_the_next_block_goes_on_where_the_last_one_ended(monkeypatch):
    monkeypatch.setattr(mixture, "BLOCK", block := 10)
    parts = (7, 1.0), (9, 1.0)
    order = mixture.order_of(16, parts, seed=0)
    counts = collections.Counter(order[i] for i in range(7 * 9 * block))
    assert {counts[i] for i in range(7)} == {9 * block // 2}
    assert {counts[i] for i in range(7, 16)} == {7 * block // 2}


def test_batches_of_a_mixture_are_those_of_their_positions():
    mixed = mixture.mix([some("a", 30), some("b", 70)], [1, 2])
    how = dict(size=(8, 8), resize=8, crop=(), ratio=(1, 1), interpolation="bilinear")
    batches = lambda step: pipeline.train_batches(
        mixed, batch_size=8, seed=1, start_step=step, flip=False, **how
    )
    all_ids = [b["id"] for b in itertools.islice(batches(0), 20)]
    later = [b["id"] for b in itertools.islice(batches(13), 7)]
    np.testing.assert_array_equal(later, all_ids[13:])
    loaded = whole.load(mixed, 1.0, np.inf)
    ids = itertools.islice(whole.numbers(loaded, batch_size=8, seed=1), 20)
    np.testing.assert_array_equal(list(ids), all_ids)
    (batch,) = itertools.islice(batches(0), 1)
    wanted = batch["id"] - 30 * (batch["id"] >= 30)
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], wanted)


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, 1e-6]])
def test_a_weight_that_gives_no_image_is_refused(weights):
    with pytest.raises(UserError, match="config.data.mix: weights 1, .*above 0"):
        mixture.mix([some("a", 3), some("b", 3)], weights)


def test_a_run_mixes_sets(tmp_path):
    """Fake images and texture patches, whose classes aren't the same."""
    other = ("embedded", "", "train", 0.25)
    config = runs.small(data__labels=False).unlock()
    config.data.mix = (other,)
    source, lines = train_data.open_data(config)
    assert len(source) == config.data.num_examples == 1024 + 6500
    assert (
        "data: a mixture of 2 sets, in training 80 % from fake 'train', 20 % from "
        "embedded 'train'"
    ) in lines
    config.data.labels = True
    said = r"the sets of config.data.mix have different classes \(10 and 13 of them\)"
    with pytest.raises(UserError, match=said):
        train_data.open_data(config)
    config.data.mix = (other[:3],)
    with pytest.raises(UserError, match="isn't \\('name', 'dir', 'split', weight\\)"):
        train_data.open_data(config)
    config.data.mix = (other,)
    images = np.zeros((40, 32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="data from Python isn't mixed with sets"):
        train_data.open_run(config, images)
