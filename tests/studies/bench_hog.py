"""Images a second of histograms of oriented gradients: ours in a compiled step against
scikit-image.

python -m tests.studies.bench_hog

Both make nine orientations in cells of 8 px of each colour channel of 224-px images;
scikit-image one channel at a time in float64 on one core, ours 64 images at once.
"""

import statistics
import time

import jax
import numpy as np
import skimage.feature

from vit_ssl_jax.ops import hog

BATCH, SIDE, ROUNDS = 64, 224, 5
BINS, CELL = 9, 8
PLAIN = 8  # images a round that scikit-image does


def plain(images):
    """scikit-image's histograms of every channel."""
    for image in images:
        for channel in np.moveaxis(image, -1, 0):
            skimage.feature.hog(
                channel,
                orientations=BINS,
                pixels_per_cell=(CELL, CELL),
                cells_per_block=(1, 1),
                feature_vector=True,
            )


def rate(function, images):
    """Images a second of one call."""
    start = time.perf_counter()
    function(images)
    return len(images) / (time.perf_counter() - start)


def main():
    """Prints medians of alternating rounds, and their ratio."""
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, SIDE, SIDE, 3), np.float32)

    @jax.jit
    def targets(images):
        return hog.to_patches(hog.hog(images, bins=BINS, cell=CELL, window=0), 2)

    on_device = jax.device_put(images)
    jax.block_until_ready(targets(on_device))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(rate(lambda x: jax.block_until_ready(targets(x)), on_device))
        theirs.append(rate(plain, images[:PLAIN]))
    device = jax.devices()[0].device_kind
    for name, found in ((f"ours, {device}", ours), ("scikit-image", theirs)):
        each = " ".join(f"{x:.1f}" for x in found)
        print(f"{name}: {statistics.median(found):.1f} images/s (rounds: {each})")
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"ratio: {ratio:.1f}")


if __name__ == "__main__":
    main()
