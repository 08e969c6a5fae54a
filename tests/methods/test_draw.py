"""What every method draws of itself: the task, and what was made of it."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_ssl_jax.ops import heatmap, hog, patches, tiles

close = np.testing.assert_allclose


def draw(method, batch, outputs=None):
    """Pictures of a batch, and what they were drawn of.

    `outputs(targets)` stands for the model; without it the outputs are zeros.
    """
    views = jax.jit(method.make_views)(jax.random.key(1), batch)
    like = jax.eval_shape(
        lambda: method.model.init_with_output(jax.random.key(0), views, False)
    )
    ema = method.init_ema(zeros(like[1]["params"]))
    targets = jax.jit(method.make_targets)(ema, views, 0)
    found = outputs(targets) if outputs else zeros(like[0])
    in_order = lambda *given: collections.OrderedDict(method.draw(*given))
    pictures = jax.jit(in_order)(found, targets, views)
    return jax.device_get((pictures, views, targets))


def zeros(shapes):
    """Arrays of those shapes."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def shown(tiny, image):
    """Standardised pixels as they are seen: in [0, 1]."""
    return np.clip(image * np.float32(tiny.std) + np.float32(tiny.mean), 0, 1)


@pytest.mark.parametrize("turns", ["all", "one"])
def test_right_logits_turn_images_back(tiny, turns):
    batch = tiny.batch(5)
    right = lambda targets: jax.nn.one_hot(targets, 4)
    pictures, _, _ = draw(tiny.method("rotation", turns=turns), batch, right)
    close(pictures["turned back as predicted"], batch["image"], atol=1e-6)
    close(pictures["turned back truly"], batch["image"], atol=1e-6)
    assert np.abs(pictures["turned"] - batch["image"]).max() > 0.1


def test_wrong_logits_turn_images_the_wrong_way(tiny):
    batch = tiny.batch(4)
    wrong = lambda targets: jax.nn.one_hot((targets + 1) % 4, 4)
    pictures, _, _ = draw(tiny.method("rotation"), batch, wrong)
    away = np.rot90(batch["image"], -1, axes=(1, 2))
    close(pictures["turned back as predicted"], away, atol=1e-6)


@pytest.mark.parametrize("grid", [2, 3])
def test_right_logits_put_the_puzzle_back(tiny, grid):
    """Tiles carry their number as brightness, so that only the order is left."""
    side = 12 * grid
    numbers = np.arange(grid**2).reshape(grid, grid).repeat(12, 0).repeat(12, 1)
    image = np.float32(numbers)[None, ..., None] / 10 - 0.4
    image = np.repeat(np.repeat(image, 3, -1), 4, 0)
    method = tiny.method("jigsaw", (side, side), grid=grid, tile=8, permutations=20)
    _, views, targets = draw(method, tiny.batch(4, (side, side)))
    table = method.draw.keywords["table"]
    shuffled = tiles.take_tiles(tiles.cut_cells(image, grid), table[targets])
    views = views | {"image": tiles.join_cells(shuffled, grid)}
    right = jax.nn.one_hot(targets, 20)
    pictures = method.draw(right, targets, views)
    names = [f"put back by the {word} permutation" for word in ("predicted", "true")]
    for name in names:
        close(pictures[name], shown(tiny, image), atol=1e-6)
    wrong = method.draw(jnp.roll(right, 1, -1), targets, views)
    assert np.abs(wrong[names[0]] - wrong[names[1]]).max() > 0.05


def test_ijepa_darkens_exactly_the_tokens_outside(tiny):
    batch = tiny.batch(3)
    pictures, views, _ = draw(tiny.method("ijepa", vit_changes={"cls": False}), batch)
    cells = np.asarray(patches.patchify(batch["image"], 4))
    for name in ("context", "target"):
        inside = np.zeros(cells.shape[:2], bool)
        for b in range(3):
            valid = views[f"{name}_valid"][b]
            inside[b, views[name][b][valid]] = True
        assert inside.any() and not inside.all()
        light = np.where(inside[..., None], 1.0, 0.2)
        row = {"target": "targets"}.get(name, name)
        close(patches.patchify(pictures[row], 4), light * cells, atol=1e-6)


@pytest.mark.parametrize("pairs", ["all", "one"])
def test_context_puts_tiles_where_they_are_predicted(tiny, pairs):
    method = tiny.method("context", pairs=pairs, colour="project")
    right = lambda targets: jax.nn.one_hot(targets, 8)
    pictures, views, targets = draw(method, tiny.batch(3), right)
    predicted, true = (f"tiles at their {x} places" for x in ("predicted", "true"))
    close(pictures[predicted], pictures[true])
    found = shown(tiny, views["tiles"])
    for b, places in enumerate(targets):
        wanted = np.zeros((9, 8, 8, 3))
        wanted[[4, *(places + (places >= 4))]] = found[b]
        cells = tiles.cut_cells(pictures[true][b : b + 1], 3)[0]  # of 10 px
        close(cells[:, 1:9, 1:9], wanted, atol=1e-6)


def test_relvit_puts_patches_where_they_are_predicted(tiny):
    changes = {"posemb": "none", "cls": True}
    method = tiny.method("relvit", vit_changes=changes.items(), patch_augment=False)
    batch = tiny.batch(2)

    def right(targets):
        return targets | {
            "relations": jax.nn.one_hot(targets["relations"], 9),
            "positions": jax.nn.one_hot(targets["positions"], 64),
        }

    pictures, views, _ = draw(method, batch, right)
    seen, *put, table = list(pictures)[:5]
    assert put == [
        "put together by predicted relations",
        "put at predicted positions",
        "true arrangement",
    ]
    for name in put:
        close(pictures[name], batch["image"], atol=1e-6)
    cells = patches.take(patches.patchify(batch["image"], 4), views["order"])
    close(patches.patchify(pictures[seen], 4), cells, atol=1e-6)
    close(pictures[table], heatmap.table(jnp.eye(9)[None], (32, 32)).repeat(2, 0))


def test_relvit_maps_what_is_far_from_the_middle_of_the_true_image(tiny):
    changes = {"posemb": "none", "cls": True}
    method = tiny.method("relvit", vit_changes=changes.items(), patch_augment=False)
    right = lambda targets: {k: targets[k] for k in ("distances", "angles")}
    pictures, _, _ = draw(method, tiny.batch(2), right)
    true, predicted = [name for name in pictures if name.startswith("distance")]
    close(pictures[true], pictures[predicted])
    y, x = np.mgrid[:8, :8] - 4
    far = np.hypot(x, y) / np.hypot(7, 7)
    wanted = heatmap.of_patches(jnp.float32(far.reshape(1, 64)), (8, 8), 4)
    close(pictures[true], wanted.repeat(2, 0), atol=1e-5)
    true, predicted = [name for name in pictures if name.startswith("angle")]
    close(pictures[true], pictures[predicted])
    # Patches in line with the outer point and the middle subtend no angle.
    light = np.asarray(patches.patchify(pictures[true], 4))[0, :, 1]
    assert (light[[0, 9, 18, 27, 36, 45, 54, 63]] < 0.03).all() and light.max() > 0.5


def test_mega_patches_and_no_positions_can_be_drawn(tiny):
    changes = {"posemb": "none", "cls": True}
    numbers = dict(mega=5, positions=0.0, patch_augment=False)
    method = tiny.method("relvit", vit_changes=changes.items(), **numbers)
    pictures, _, _ = draw(method, tiny.batch(2))
    assert {"patches as they are seen", "true arrangement"} <= set(pictures)
    assert not any("positions" in name for name in pictures)
    assert all(x.shape == (2, 20, 20, 3) for x in pictures.values())


def test_a_supervised_method_shows_what_it_classifies(tiny):
    batch = tiny.batch(3)
    sure = lambda targets: 5.0 * jax.nn.one_hot(jnp.array([7, 8, 9]), 10)
    pictures, _, _ = draw(tiny.method("supervised"), batch, sure)
    seen, true, predicted, probability = pictures.values()
    close(seen, batch["image"], atol=1e-6)
    np.testing.assert_array_equal(true, batch["label"])
    np.testing.assert_array_equal(predicted, [7, 8, 9])
    close(probability, np.exp(5) / (np.exp(5) + 9), rtol=1e-5)
    pictures, _, _ = draw(tiny.method("supervised", mixup=0.8), batch)
    assert np.abs(pictures["as it is classified"] - batch["image"]).max() > 0.01
    pictures, _, _ = draw(
        tiny.method("supervised"), batch | {"label": -np.ones(3, int)}
    )
    np.testing.assert_array_equal(pictures["true class"], -1)


def test_maskfeat_draws_histograms_where_patches_are_hidden(tiny):
    method = tiny.method("maskfeat")
    right = lambda targets: targets["hog"]
    pictures, views, targets = draw(method, tiny.batch(3), right)
    _, everywhere, true, predicted = pictures.values()
    close(true, predicted)
    side = everywhere.shape[1] // 8
    whole = side * np.ones(2, int)
    assert side == 8  # cells of 4 px are enlarged
    hide = views["hide"].reshape(3, 8, 8).repeat(whole[0], 1).repeat(whole[1], 2)
    close(predicted, np.where(hide[..., None], everywhere, 0))
    cells = hog.from_patches(targets["hog"], (8, 8), 9, 1)
    close(everywhere, hog.render(jnp.asarray(cells), 8), atol=1e-6)


def test_of_tiles_at_one_place_the_surest_stays():
    scores = jnp.float32([[[5, 0, 0], [9, 0, 0], [0, 0, 1]]])
    found = tiles.place_tiles(jnp.float32([[[1], [2], [3]]]), scores)
    close(found, [[[2], [0], [3]]])
