"""Joint augmentation: pixels and their classes stay together; sizes as mmcv's."""

import cv2
import numpy as np
import pytest

from vit_ssl_jax.data import distortion, draws, joint, maps
from vit_ssl_jax.errors import UserError

KIND = maps.Classes(40)
HOW = dict(size=(32, 48), short=0, scale=(1.0, 1.0), flip=True)


def scene(h=60, w=80, cell=10):
    """An image whose red is 6 times the class of the cell that a pixel is in."""
    rows, cols = np.mgrid[:h, :w] // cell
    read = ((rows * 5 + cols * 3) % 40).astype(np.uint8)
    image = np.stack([6 * read, 255 - 6 * read, 100 + 0 * read], -1)
    return image, read


def rngs(count, seed=0):
    """Draws as the batches have them."""
    return draws.by_counter(seed, 0, count)


def agree(image, read):
    """Part of the pixels inside of the image that have their class's colour."""
    known = read != maps.IGNORED
    return (np.abs(image[..., 0] / 6 - read)[known] < 0.5).mean(), known.mean()


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        (dict(), 1.0),
        (dict(scale=(0.5, 2.0)), 0.85),  # edges between cells are mixed
        (dict(short=240, scale=(0.5, 2.0)), 0.85),
        (dict(degrees=20.0), 0.85),
        (dict(border=(10, 110, 5, 155)), 1.0),
    ],
)
def test_pixels_keep_their_classes(changes, least):
    how = joint.Joint(**HOW | changes)
    for rng in rngs(12):
        image, read = how(rng, *scene(120, 160, 20), KIND)
        assert (image.shape, read.shape) == ((32, 48, 3), (32, 48))
        right, _ = agree(image, read)
        assert right >= least


def test_what_lies_outside_is_filled_and_has_no_class():
    how = joint.Joint(**HOW | dict(size=(96, 96), flip=False))
    image, read = how(rngs(1)[0], *scene(), KIND)
    assert (read[60:] == 255).all() and (read[:, 80:] == 255).all()
    assert (image[60:] == joint.FILL).all()
    np.testing.assert_array_equal(read[:60, :80], scene()[1])
    _, depth = how(rngs(1)[0], scene()[0], np.ones((60, 80), np.float32), maps.Depth())
    assert (depth[60:] == 0).all() and (depth[:60, :80] == 1).all()


def test_half_is_mirrored_and_draws_decide_all():
    how = joint.Joint(**HOW | dict(size=(60, 80)))
    plain = scene()[1]
    made = [how(rng, *scene(), KIND)[1] for rng in rngs(200)]
    mirrored = [np.array_equal(read, plain[:, ::-1]) for read in made]
    assert all(m or np.array_equal(r, plain) for m, r in zip(mirrored, made))
    assert 70 < sum(mirrored) < 130
    again = [how(rng, *scene(), KIND)[1] for rng in rngs(200)]
    np.testing.assert_array_equal(again, made)


def test_depths_turn_with_their_image():
    image, read = scene()
    depth = np.float32(1 + read)
    turned, metres = joint.rotate(image, depth, 10.0, maps.Depth())
    inside = metres > 0
    assert (np.abs(turned[..., 0] / 6 + 1 - metres)[inside] < 0.5).mean() > 0.85
    assert not inside[0, 0] or not inside[0, -1]


def test_a_crop_of_mostly_one_class_is_drawn_anew():
    read = np.zeros((100, 400), np.uint8)
    read[:, 200:] = 1
    image = np.zeros((100, 400, 3), np.uint8)
    numbers = dict(size=(80, 80), short=0, scale=(1.0, 1.0), flip=False)

    def most(limit):
        how = joint.Joint(**numbers, most=limit)
        found = [how(rng, image, read, KIND)[1] for rng in rngs(100)]
        return np.mean([max(np.mean(r == 0), np.mean(r == 1)) <= 0.75 for r in found])

    # By chance a crop is on both sides far enough for 1 / 8 of the places.
    assert 0.03 < most(1.0) < 0.25
    assert most(0.75) > 0.55  # 1 - (7 / 8)^10 = 0.74


@pytest.mark.parametrize(
    ("shape", "short", "factor", "wanted"),
    [
        ((500, 334), 512, 1.0, (766, 512)),  # mmcv.rescale_size(334x500, (2048, 512))
        ((512, 683), 512, 1.0, (512, 683)),
        ((512, 683), 512, 0.5, (256, 342)),
        ((100, 1000), 512, 1.0, (205, 2048)),
        ((480, 640), 0, 1.0, (480, 640)),
    ],
)
def test_sizes_are_those_of_mmcv(shape, short, factor, wanted):
    assert joint.scaled(shape, short, factor) == wanted


def test_a_border_outside_of_the_image_is_told():
    how = joint.Joint(**HOW | dict(border=(45, 472, 43, 608)))
    with pytest.raises(UserError, match=r"border: \(45, 472.*outside.* 60 x 80 px"):
        how(rngs(1)[0], *scene(), KIND)


def test_colours_change_within_their_bounds():
    image = np.full((8, 8, 3), 100, np.uint8)
    np.testing.assert_array_equal(distortion.distort(None, image, ""), image)
    made = [distortion.distort(rng, image, "gamma") for rng in rngs(300)]
    same = np.mean([np.array_equal(x, image) for x in made])
    assert 0.4 < same < 0.6
    low, high = 100**0.9 * 0.75 * 0.9, 100**1.1 * 1.25 * 1.1
    assert all(low - 1 <= x.min() and x.max() <= high + 1 for x in made)
    made = [distortion.distort(rng, image, "photometric") for rng in rngs(300)]
    bright = np.array([x.mean() for x in made])
    # 1/4 get neither brightness nor contrast; grey has neither saturation nor hue
    assert 0.17 < np.mean(np.abs(bright - 100) < 1.5) < 0.37
    assert bright.min() > 0.5 * 68 - 2 and bright.max() < 1.5 * 132 + 2
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    hues = {
        int(cv2.cvtColor(distortion.photometric(rng, red), cv2.COLOR_RGB2HSV)[0, 0, 0])
        for rng in rngs(300)
    }
    assert len(hues) > 10 and all(h <= 19 or h >= 161 for h in hues)
