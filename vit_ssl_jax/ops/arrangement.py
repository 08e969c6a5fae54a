"""RelViT's answers as pictures: patches put where it says, its pairs as maps and tables.

B images of N patches on a `grid` of (rows, columns), token t from place `order[t]`.
"""

import jax
import jax.numpy as jnp

from vit_ssl_jax.ops import heatmap, patches, relations, tiles

PAIRS = {"distances": "distance", "angles": "angle"}


def show(seen, outputs, targets, order, *, grid, patch):
    """Rows of pictures `[B H W 3]` in [0, 1], by name.

    seen: the image as it was shuffled, `[B H W 3]` in [0, 1]; outputs and targets as in
    `methods/relvit.py`. Of patches that are said to be at one position the surest is drawn,
    and a position without one is black. Distance and angle are those from the patch in the
    middle, every patch where it truly was.
    """
    cells, size = patches.patchify(seen, patch), seen.shape[1:3]

    def put(placed):
        return patches.unpatchify(placed, patch, grid)

    rows = {"patches as they are seen": seen}
    if "relations" in outputs:
        places = relations.arrange(outputs["relations"], grid)
        placed = patches.take(cells, jnp.argsort(places, axis=1))
        rows["put together by predicted relations"] = put(placed)
    if "positions" in outputs:
        placed = tiles.place_tiles(cells, outputs["positions"])
        rows["put at predicted positions"] = put(placed)
    back = jnp.argsort(order, axis=1)  # the token of every place
    rows["true arrangement"] = put(patches.take(cells, back))
    if "relations" in outputs:
        said = outputs["relations"].argmax(-1)
        shares = relations.confusion(said, targets["relations"])
        rows["relations, true (down) by predicted (across); yellow: all"] = (
            heatmap.table(shares, size)
        )
    for task, word in PAIRS.items():
        if task in outputs:
            for kind, pairs in (("true", targets[task]), ("predicted", outputs[task])):
                values = from_middle(pairs, back, grid)
                name = f"{word} from the middle, {kind} (dark: least)"
                rows[name] = heatmap.of_patches((values + 1.0) / 2.0, grid, patch)
    return rows


def from_middle(pairs, back, grid):
    """Of pairs those with the middle patch, in raster order: `[B N N] -> [B N]`.

    `back [B N]` is the token of every place.
    """
    middle = grid[0] // 2 * grid[1] + grid[1] // 2
    token = jax.lax.dynamic_index_in_dim(back, middle, axis=1)  # [B 1]
    row = jnp.take_along_axis(pairs, token[..., None], axis=1)[:, 0]
    return jnp.take_along_axis(row, back, axis=1)
