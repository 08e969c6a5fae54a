"""Reading: the next whole image for a broken one, counted, and reported once."""

import logging

import numpy as np
import pytest

from vit_ssl_jax.data.reading import read_whole, try_to_read
from vit_ssl_jax.data.sources import Source
from vit_ssl_jax.errors import UserError


def numbered(length, broken=(), missing=()):
    """Images all of whose pixels are their number; some are no images."""

    def read(i):
        if i in missing:
            raise FileNotFoundError(i)
        pixels = np.full((2, 2, 3), i, np.uint8)
        return b"no image" if i in broken else pixels, 10 * i

    return Source("numbers", length, read, lambda i: f"number {i}")


def test_a_broken_image_is_replaced_by_the_next_whole_one(caplog):
    source = numbered(6, broken={1, 5}, missing={2})
    with caplog.at_level(logging.WARNING):
        found = [read_whole(source, i) for i in range(6)]
    assert [(label, i) for _, label, i in found] == [
        *((0, 0), (30, 3), (30, 3)),
        *((30, 3), (40, 4), (0, 0)),
    ]
    assert [pixels[0, 0, 0] for pixels, _, _ in found] == [0, 3, 3, 3, 4, 0]
    assert source.broken == {1, 2, 5}
    assert len(caplog.records) == 1 and "number 1 is broken" in caplog.text


def test_trying_says_none():
    source = numbered(3, broken={1})
    assert try_to_read(source, 1) is None
    assert try_to_read(source, 2)[1] == 20
    assert source.broken == {1}


def test_the_last_one_broken_and_a_hundred_in_a_row_raise():
    with pytest.raises(UserError, match="all 3 images of numbers are broken"):
        read_whole(numbered(3, broken=range(3)), 1)
    with pytest.raises(UserError, match="100 images in a row .* from number 7 on"):
        read_whole(numbered(255, broken=range(200)), 7)


def test_a_broken_image_s_name_does_not_write_on_the_terminal(caplog):
    """Names of files may hold what sets a terminal's title or colours."""
    broken = Source(
        "\x1b[1mset", 2, lambda i: (b"no image", 0), lambda i: "\x1b[31m.jpg"
    )
    assert try_to_read(broken, 0) is None
    assert r"\x1b[31m.jpg is broken and left out" in caplog.text
    assert r"\x1b[1mset are counted" in caplog.text and "\x1b" not in caplog.text
