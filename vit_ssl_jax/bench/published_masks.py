"""How many tokens I-JEPA's published collator leaves a batch (its `multiblock.py`)."""

import numpy as np

DRAWS = 100


def token_counts(method, grid, batch):
    """Mean tokens of context and target over batches of `batch` images: two ints.

    One block size a batch, blocks anywhere in the image, all images cut down to the
    fewest tokens that any of them keeps.
    """
    rng = np.random.default_rng(0)
    counts = np.array([_count(rng, method, grid, batch) for _ in range(DRAWS)])
    return tuple(round(x) for x in counts.mean(0).tolist())


def _count(rng, method, grid, batch):
    target = _size(rng.uniform(), grid, method.target_scale, method.target_aspect)
    context = _size(rng.uniform(), grid, method.context_scale, method.context_aspect)
    fewest = grid[0] * grid[1]
    for _ in range(batch):
        covered = _block(rng, context, grid)
        for _ in range(method.num_targets):
            covered &= ~_block(rng, target, grid)
        if covered.sum() > method.min_keep:  # theirs tries again otherwise
            fewest = min(fewest, covered.sum())
    return fewest, target[0] * target[1]


def _size(u, grid, scale, aspect):
    """Rows and columns of a block by one uniform number `u`, as in the collator."""
    area = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    rows, cols = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    return min(rows, grid[0] - 1), min(cols, grid[1] - 1)


def _block(rng, size, grid):
    """A block at a random place: `[rows columns]` bool."""
    top, left = (rng.integers(g - s) for g, s in zip(grid, size, strict=True))
    covered = np.zeros(grid, bool)
    covered[top : top + size[0], left : left + size[1]] = True
    return covered
