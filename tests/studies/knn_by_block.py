"""k-NN on the features of every block of finished runs on CIFAR-10, learned and untrained.

python -m tests.studies.knn_by_block --data=DIR RUN...

As `configs/pretext_cpu.py` asks its last block: 20 neighbours of 5,000 training images, 2,000
test images, mean of the patches behind the final norm, standardised.
"""

import argparse
import functools

import jax
import numpy as np

import vit_ssl_jax
from vit_ssl_jax import build
from vit_ssl_jax.data import reading
from vit_ssl_jax.data.sources import open_source
from vit_ssl_jax.encoder import make_pool

SPLITS = {"train": 5_000, "test": 2_000}
BATCH = 250


def main():
    """Prints a row a run and block."""
    parser = argparse.ArgumentParser(
        prog="tests.studies.knn_by_block", description=__doc__
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    bank, queries = (read(args.data, *item) for item in SPLITS.items())
    print("| run | block | untrained | learned | gain |\n|---|---|---|---|---|")
    for run in args.runs:
        encoder = vit_ssl_jax.load(run)
        program = build.make_run(encoder.config, jax.devices()[:1]).program
        untrained = program.init(jax.random.key(encoder.config.seed)).params["encoder"]
        for block in range(1, encoder.module.depth + 1):
            how = encoder.normalize, encoder.mesh, block, "mean"
            features = make_pool(encoder.module, *how)
            with jax.set_mesh(encoder.mesh):
                before, after = (
                    100 * accuracy(functools.partial(features, params), bank, queries)
                    for params in (untrained, encoder.params)
                )
            cells = [run, block, f"{before:.1f}", f"{after:.1f}"]
            print(
                "| " + " | ".join(map(str, [*cells, f"{after - before:+.1f}"])) + " |"
            )


def read(data, split, count):
    """The first images of a split, uint8 `[n 32 32 3]`, and their labels."""
    source = open_source("cifar10", data, f"{split}[:{count}]")
    pairs = [reading.try_to_read(source, i) for i in range(count)]
    return np.stack([image for image, _ in pairs]), np.array([y for _, y in pairs])


def accuracy(features, bank, queries, k=20, temperature=0.07):
    """Top-1 of a weighted vote of the `k` nearest by cosine."""
    rows = [
        np.concatenate([features(x) for x in np.split(images, len(images) // BATCH)])
        for images, _ in (bank, queries)
    ]
    mean, std = rows[0].mean(0), rows[0].std(0) + 1e-6
    rows = [(x - mean) / std for x in rows]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    similarity = rows[1] @ rows[0].T
    nearest = np.argsort(-similarity, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(similarity, nearest, 1) / temperature)
    votes = np.zeros((len(nearest), 10))
    np.add.at(votes, (np.arange(len(nearest))[:, None], bank[1][nearest]), weights)
    return (votes.argmax(1) == queries[1]).mean()


if __name__ == "__main__":
    main()
