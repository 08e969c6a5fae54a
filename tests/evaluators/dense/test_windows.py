"""Windows: their places, and pixels by matrices as torch would add them up."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vit_ssl_jax import partition
from vit_ssl_jax.evaluators.dense import windows
from vit_ssl_jax.ops import bilinear


@pytest.mark.parametrize(
    ("length", "wanted"),
    [(512, [0]), (683, [0, 171]), (1024, [0, 341, 512]), (300, [0]), (853, [0, 341])],
)
def test_windows_begin_where_mmsegmentations_do(length, wanted):
    assert windows.starts(length, 512, 341) == wanted


def slide(cells, shape, new, size, stride):
    """`slide_inference` in torch: logits of windows resized, added, divided, resized."""
    total, times = torch.zeros(1, cells.shape[-1], *shape), torch.zeros(1, 1, *shape)
    k = 0
    for y in windows.starts(shape[0], size[0], stride):
        for x in windows.starts(shape[1], size[1], stride):
            logits = torch.tensor(cells[k]).permute(2, 0, 1)[None]
            up = functional.interpolate(logits, size, mode="bilinear")
            inside = (slice(y, y + size[0]), slice(x, x + size[1]))
            there = total[..., *inside]
            there += up[..., : there.shape[2], : there.shape[3]]
            times[..., *inside] += 1
            k += 1
    assert k == len(cells)
    out = functional.interpolate(total / times, new, mode="bilinear")
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("shape", "new", "stride"),
    [((32, 40), (37, 51), 20), ((75, 32), (75, 32), 20), ((24, 90), (11, 45), 11)],
)
def test_pixels_are_those_of_windows_added_up(shape, new, stride):
    size, grid = (32, 32), (4, 4)
    image = np.zeros((*shape, 3), np.uint8)
    cut, rows = windows.cut(image, size, stride)
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(len(cut), *grid, 5)).astype(np.float32)
    matrices = [
        windows.weights(*numbers, stride, n)
        for *numbers, n in zip(new, shape, size, grid)
    ]
    logits = windows.mosaic(cells, rows)
    found = bilinear.spread(logits[None], *matrices)[0]
    wanted = slide(cells, shape, new, size, stride)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    choose = windows.make_chooser(partition.make_mesh(dict(data=-1, fsdp=1, tensor=1)))
    np.testing.assert_array_equal(choose(logits, *matrices), wanted.argmax(-1))


def test_windows_hold_the_images_pixels_and_fill_what_is_missing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 50, 3), np.uint8)
    cut, rows = windows.cut(image, (32, 32), 20)
    assert (cut.shape, rows) == ((2, 32, 32, 3), 1)
    np.testing.assert_array_equal(cut[0, :24], image[:, :32])
    np.testing.assert_array_equal(cut[1, :24], image[:, 18:])
    assert (cut[:, 24:] == windows.joint.FILL).all()


def test_answers_come_back_to_their_images_whatever_the_batch():
    counts, seen = [1, 3, 2, 1, 6, 1], []

    def compute(batch):
        seen.append(len(batch))
        return batch.sum(1) * 2

    pieces = [(np.full((n, 2), i + 1.0), i) for i, n in enumerate(counts)]
    for size in (1, 4, 100):
        found = list(windows.answers(iter(pieces), compute, size))
        assert [rest for _, rest in found] == list(range(6))
        for (said, i), n in zip(found, counts):
            np.testing.assert_array_equal(said, np.full(n, 4.0 * (i + 1)))
        assert set(seen) == {size}
        seen.clear()
