"""A set in memory: its numbers are those of the host's batches, and what it refuses."""

import itertools

import numpy as np
import pytest

from vit_ssl_jax.data import whole
from vit_ssl_jax.data.pipeline import train_batches
from vit_ssl_jax.data.source import Source
from vit_ssl_jax.errors import UserError


def numbered(length, broken=(), size=lambda i: (16, 16)):
    """Images all of whose pixels are their number modulo 256; some are no images."""

    def read(i):
        if i in broken:
            return b"no image", i % 3
        return np.full((*size(i), 3), i % 256, np.uint8), i % 3

    return Source("numbers", length, read, lambda i: f"number {i}", ("a", "b", "c"))


def load(source, max_broken=1.0, most_bytes=np.inf):
    return whole.load(source, max_broken, most_bytes)


def test_all_images_are_there_with_their_labels():
    loaded = load(numbered(300))
    assert loaded.image.shape == (300, 16, 16, 3) and loaded.label.dtype == np.int32
    np.testing.assert_array_equal(loaded.image[:, 3, 5, 1], np.arange(300) % 256)
    np.testing.assert_array_equal(loaded.label, np.arange(300) % 3)
    np.testing.assert_array_equal(loaded.stand_in, np.arange(300))


@pytest.mark.parametrize("shard", [(0, 1), (0, 2), (1, 2), (3, 4)])
@pytest.mark.parametrize("broken", [(), (0, 7, 8, 49)])
def test_numbers_are_those_of_the_hosts_batches(shard, broken):
    """Over two epochs, from a step on, the next whole image in place of a broken one."""
    order = dict(batch_size=8, seed=5, start_step=3, shard=shard)
    how = dict(size=(8, 8), resize=8, crop=(), ratio=(1, 1), interpolation="bilinear")
    batches = train_batches(numbered(50, broken), flip=False, **how, **order)
    wanted = [batch["id"] for batch in itertools.islice(batches, 12)]
    loaded = load(numbered(50, broken))
    got = list(itertools.islice(whole.numbers(loaded, **order), 12))
    np.testing.assert_array_equal(got, wanted)
    assert not set(np.ravel(got)) & set(broken)


@pytest.mark.parametrize(
    ("source", "limits", "said"),
    [
        (
            numbered(9, size=lambda i: (16, 16 + (i == 6))),
            {},
            "of one size, and number 6 has 17 x 16 px, others 16 x 16; set it to False",
        ),
        (
            numbered(2000),
            dict(most_bytes=2**20),
            "the 2,000 images of numbers take 0.00 GiB of every device, more than half",
        ),
        (
            numbered(40, broken=(1, 2, 3)),
            dict(max_broken=0.05),
            r"3 of the 40 images .*config.data.max_broken",
        ),
        (numbered(4, broken=range(4)), {}, "all 4 images of numbers are broken"),
    ],
)
def test_what_cannot_live_there_is_refused(source, limits, said):
    with pytest.raises(UserError, match=said):
        load(source, **limits)


def test_one_of_too_many_bytes_is_refused_before_the_rest_is_read():
    read = []

    def counted(i):
        read.append(i)
        return np.zeros((16, 16, 3), np.uint8), 0

    source = Source("many", 10_000, counted, str)
    with pytest.raises(UserError, match="device_cache"):
        load(source, most_bytes=100)
    assert read == [0]
