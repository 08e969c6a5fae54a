"""I-JEPA's multi-block masks on the device, with static shapes (paper, appendix A.1)."""

import jax
import jax.numpy as jnp

from vit_ssl_jax.ops import masks

TRIES = 20  # failures before one more target may overlap the context (multiblock.py)


def multiblock(
    key,
    batch,
    *,
    grid,
    context,
    target,
    num_contexts,
    num_targets,
    min_keep,
    max_context,
    official,
    trim_batch,
):
    """Draws context and target ids for a batch.

    Block sizes are shared by the whole batch, positions are per image; the context is
    its block minus the targets, redrawn until more than `min_keep` tokens are left.
    After `TRIES` failures the last target may overlap it, then the last two, and so on.

    `context` and `target` are `masks.BlockSizes`. `official` places blocks with the
    published exclusive bound and trims contexts to the minimum of each `trim_batch`
    images in raster order; otherwise placement is uniform and only contexts of more
    than `max_context` tokens lose some, at random. `max_context` 0 is the largest
    block. Returns ids int32 and validity bool with static bounds K and M:
    `context [B E K]`, `context_valid`, `target [B T M]`, `target_valid`, and per
    image the tokens that a bound or trim took (`dropped [B E]`) and whether a target
    overlaps (`overlap [B E]`).
    """
    size_key, target_key, context_key, drop_key = jax.random.split(key, 4)
    target_size = target.draw(jax.random.fold_in(size_key, 0))
    context_size = context.draw(jax.random.fold_in(size_key, 1))
    shape, inclusive = (batch, num_targets), not official
    top, left = masks.place_blocks(target_key, shape, grid, target_size, inclusive)
    ids, valid = masks.block_ids(top, left, target_size, grid, target.largest)
    covered = masks.block_map(top, left, target_size, grid)  # [B T H W]
    cells, overlap = _contexts(
        context_key, covered, context_size, num_contexts, min_keep, inclusive
    )
    bound = max_context or context.largest
    kept = _trim(drop_key, cells, bound, trim_batch if official else 0)
    context_ids, context_valid = masks.map_to_ids(kept, bound)
    return {
        "context": context_ids,
        "context_valid": context_valid,
        "target": ids,
        "target_valid": valid,
        "dropped": cells.sum(-1) - context_valid.sum(-1),
        "overlap": overlap,
    }


def _trim(key, cells, bound, group):
    """The published trim of a `group` of images, or at random where there is none."""
    if group:
        return masks.keep_group_minimum(cells, group)
    return masks.keep_at_most(key, cells, bound)


def _contexts(key, covered, size, num_contexts, min_keep, inclusive):
    """Context cells `[B E N]` and overlap `[B E]` for target maps `[B T H W]`.

    All tries are drawn at once and the first that leaves enough tokens is taken, which
    is the same law as trying one after the other.
    """
    batch, num_targets, height, width = covered.shape
    grid = (height, width)
    # Level 0 avoids all targets, the next all but the last, the final one none.
    free = jnp.stack([~covered[:, :n].any(1) for n in range(num_targets, -1, -1)], 1)

    levels = num_targets * TRIES
    shape = (batch, num_contexts, levels + 1)  # the last try avoids no target
    top, left = masks.place_blocks(key, shape, grid, size, inclusive)
    in_rows = masks.span(top, size[0], height)
    in_cols = masks.span(left, size[1], width)
    split = (batch, num_contexts, num_targets, TRIES)
    counts = jnp.einsum(
        "betah,bthw,betaw->beta",
        in_rows[:, :, :levels].reshape(*split, height).astype(jnp.float32),
        free[:, :-1].astype(jnp.float32),
        in_cols[:, :, :levels].reshape(*split, width).astype(jnp.float32),
        precision="highest",
    ).reshape(batch, num_contexts, levels)
    enough = jnp.concatenate(
        [counts > min_keep, jnp.ones((batch, num_contexts, 1), bool)], -1
    )
    first = jnp.argmax(enough, -1)[..., None]  # [B E 1]
    top, left = (jnp.take_along_axis(x, first, -1)[..., 0] for x in (top, left))
    level = first[..., 0] // TRIES
    chosen = jnp.take_along_axis(free, level[..., None, None], 1)
    cells = masks.block_map(top, left, size, grid) & chosen
    return cells.reshape(batch, num_contexts, -1), level > 0
